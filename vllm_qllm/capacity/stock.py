# SPDX-License-Identifier: Apache-2.0
"""vLLM's own scheduling, ``fcfs`` and ``priority``: the order of waiting, and of losing blocks."""

from __future__ import annotations

from vllm_qllm.capacity.batch import Batch
from vllm_qllm.capacity.request import Request
from vllm_qllm.capacity.scheduler import Heap, Scheduler
from vllm_qllm.capacity.server import Server


class StockScheduler(Scheduler):
    """One queue for all; under ``priority`` a more urgent class is admitted first."""

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self._queue = Heap()
        self._by_class = server.scheduling == "priority"

    def add(self, request: Request) -> None:
        """Queue it by class and arrival, or by arrival alone, which puts preempted ones first."""
        self._queue.push(request, request.level if self._by_class else 0, request.arrived)

    def waiting(self) -> int:
        """Requests that are not admitted."""
        return len(self._queue)

    def _grow(self, request: Request, tokens: int) -> bool:
        return self.blocks.take(request, tokens)

    def _last(self, rows: list[Request]) -> Request:  # type: ignore[override]
        if self._by_class:
            return super()._last(rows)
        return rows[-1]

    def compose(self) -> Batch:
        """The next step; empty when there is nothing to do."""
        decodes = [r for rows in self.decoding for r in rows]
        prefills = [r for rows in self.prefilling for r in rows]
        running = len(decodes) + len(prefills)
        self.decoding = [[] for _ in self.decoding]
        self.prefilling = [[] for _ in self.prefilling]
        slots = self.server.slots - running
        batch = self.fill(decodes, prefills, [], self._queue, slots, running + len(self._queue))
        requests = [*batch.decodes, *(r for r, _ in batch.prefills)]
        batch.level = min((r.level for r in requests), default=0)
        return batch
