# SPDX-License-Identifier: Apache-2.0
"""What vLLM's scheduler puts into a step: running requests first, then waiting ones."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Protocol

from vllm_qllm.capacity.batch import Batch
from vllm_qllm.capacity.kv import Blocks
from vllm_qllm.capacity.request import Request
from vllm_qllm.capacity.server import Server


class Queue(Protocol):
    """Waiting requests in the order in which they are admitted."""

    def __bool__(self) -> bool: ...

    def peek(self) -> Request:
        """The first one."""
        ...

    def pop(self) -> Request:
        """Remove and return the first one."""
        ...


class Heap:
    """Waiting requests by a key that never changes while they wait."""

    __slots__ = ("_heap",)

    def __init__(self) -> None:
        self._heap: list[tuple[float, ...]] = []

    def push(self, request: Request, *key: float) -> None:
        """Add a request; smaller keys are admitted first."""
        heapq.heappush(self._heap, (*key, request.number, request))  # type: ignore[misc]

    def __len__(self) -> int:
        return len(self._heap)

    def __bool__(self) -> bool:
        return bool(self._heap)

    def peek(self) -> Request:
        """The first one."""
        return self._heap[0][-1]  # type: ignore[return-value]

    def first(self, most: int) -> list[Request]:
        """The first ones, at most ``most``."""
        return [entry[-1] for entry in heapq.nsmallest(max(0, most), self._heap)]  # type: ignore[misc]

    def pop(self) -> Request:
        """Remove and return the first one."""
        return heapq.heappop(self._heap)[-1]  # type: ignore[return-value]


class Scheduler:
    """The part that stock and class scheduling share; requests in a step are in no list.

    Attributes:
        decoding, prefilling: admitted requests, by class.
        suspendable: whether steps are ever suspended.
        preemptions: how often a request lost its blocks.
    """

    suspendable = False

    def __init__(self, server: Server) -> None:
        classes = len(server.priority.classes)
        self.server = server
        self.blocks = Blocks(server.kv_blocks, server.block_size)
        self.decoding: list[list[Request]] = [[] for _ in range(classes)]
        self.prefilling: list[list[Request]] = [[] for _ in range(classes)]
        self.in_steps = 0
        self.preemptions = 0
        self._admissions = 0

    # -- what the two kinds do differently -----------------------------------------------------

    def add(self, request: Request) -> None:
        """Queue a request that has arrived or lost its blocks."""
        raise NotImplementedError

    def waiting(self) -> int:
        """Requests that are not admitted."""
        raise NotImplementedError

    def _grow(self, request: Request, tokens: int) -> bool:
        """Give the request KV blocks for ``tokens``; others may lose theirs for them."""
        raise NotImplementedError

    # -- shared --------------------------------------------------------------------------------

    def admitted(self) -> int:
        """Requests that hold a slot, those in steps included."""
        return self.in_steps + sum(map(len, self.decoding)) + sum(map(len, self.prefilling))

    def fill(
        self,
        decodes: list[Request],
        prefills: list[Request],
        riders: list[Request],
        queue: Queue,
        slots: int,
        eligible: int,
    ) -> Batch:
        """One step of vLLM's ``schedule()``.

        Args:
            decodes, prefills: admitted requests that may run, taken from their lists.
            riders: decodes that come behind all of these.
            queue: the requests that may be admitted.
            slots: how many admissions the slots allow.
            eligible: running and waiting requests, for the long-prefill threshold.
        """
        budget = self.server.token_budget
        threshold = self.server.long_prefill_threshold if eligible > 1 else 0
        preempted = False
        rows = decodes + riders
        if not prefills and len(rows) <= min(budget, self.blocks.free - self._reserve(rows)):
            # Every row finds its block: the common case, without a call for each.
            size = self.blocks.size
            for row in rows:
                if row.computed >= row.blocks * size:
                    row.blocks += 1
                    self.blocks.free -= 1
            batch = Batch(rows)
            budget -= len(rows)
        else:
            running = sorted(decodes + prefills, key=lambda r: r.admitted) + riders
            batch, budget, preempted = self._fill_running(running, budget, threshold)
        while budget > 0 and slots > 0 and queue and not preempted:
            request = queue.peek()
            tokens = min(request.missing, budget, threshold or budget)
            if not self._admit(request, tokens):
                break
            queue.pop()
            self._admissions += 1
            request.admitted = self._admissions
            batch.prefills.append((request, tokens))
            slots -= 1
            budget -= tokens
        self.in_steps += len(batch.decodes) + len(batch.prefills)
        return batch

    def _fill_running(
        self, running: list[Request], budget: int, threshold: int
    ) -> tuple[Batch, int, bool]:
        """The admitted requests of a step in order, what is left of the budget, and whether some
        lost their blocks to others, after which vLLM admits nobody."""
        taken: dict[Request, int] = {}
        preempted = False
        position = 0
        while position < len(running) and budget > 0:
            request = running[position]
            tokens = min(request.missing, budget, threshold or budget)
            while not self._grow(request, request.computed + tokens):
                victim = self._last(running)
                at = running.index(victim)
                del running[at]
                position -= at < position
                budget += taken.pop(victim, 0)
                self.preempt(victim)
                preempted = True
                if victim is request:
                    break
            else:
                taken[request] = tokens
                budget -= tokens
                position += 1
                continue
            break
        self.put_back([r for r in running if r not in taken])
        batch = Batch()
        for request, tokens in taken.items():
            if request.missing == 1 and request.emitted:
                batch.decodes.append(request)
            else:
                batch.prefills.append((request, tokens))
        return batch, budget, preempted

    def _reserve(self, rows: Sequence[Request]) -> int:
        """Blocks that ``rows`` must leave free."""
        return 0

    def _admit(self, request: Request, tokens: int) -> bool:
        # vLLM admits a request only when all of its tokens would fit now.
        if not self._grow(request, request.prompt + request.emitted):
            return False
        self.blocks.release(request)
        return self._grow(request, request.computed + tokens)

    def _last(self, rows: Sequence[Request]) -> Request:
        """Who goes first when blocks run out."""
        return max(rows, key=lambda r: (r.level, r.arrived, r.number))

    def preempt(self, victim: Request) -> None:
        """The victim loses its blocks and waits again; its KV is computed anew."""
        self.blocks.release(victim)
        victim.computed = 0
        victim.preemptions += 1
        self.preemptions += 1
        self.add(victim)

    def put_back(self, requests: Sequence[Request]) -> None:
        """Return admitted requests to their lists."""
        for request in requests:
            prefill = request.missing > 1 or not request.emitted
            lists = self.prefilling if prefill else self.decoding
            lists[request.level].append(request)

    def retire(self, batch: Batch, finished: set[Request]) -> None:
        """After a step: return its requests, but for those that are done."""
        self.in_steps -= len(batch.decodes) + len(batch.prefills)
        rows = batch.decodes
        if finished:
            for request in finished:
                self.blocks.release(request)
            rows = [r for r in rows if r not in finished]
        for row in rows:
            self.decoding[row.level].append(row)
        self.put_back([r for r, _ in batch.prefills if r not in finished])
