# SPDX-License-Identifier: Apache-2.0
"""What becomes of the KV of requests that have to wait: parked in place, spilled, or recomputed."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.outputs import KVConnectorOutput
from vllm.v1.request import Request

from vllm_qllm.engine.step import Step
from vllm_qllm.kv.copies import Copies, CopyReport

if TYPE_CHECKING:
    from vllm_qllm.engine.scheduler import PriorityScheduler

# Blocks are copied ahead once less than this fraction of them is free.
SCARCE = 0.5
# And so many of each request in a step of its own, besides as many as the step fills.
CATCH_UP = 2


class Parking:
    """Decides for one scheduler, and keeps the host's side of it up to date.

    A held-back request is parked in place: it keeps its blocks while nobody more urgent needs
    them and all parked requests together hold no more than ``park_fraction`` of the pool. One
    that loses them is spilled if that pays, else computed again.
    """

    def __init__(self, scheduler: PriorityScheduler) -> None:
        self._scheduler = scheduler
        self._manager = scheduler.kv_cache_manager
        self._spill = scheduler.spill
        # Tokens that a preempted request had computed.
        self._lost: dict[str, int] = {}
        # While the step runs that resumes it: its class, how many of them are left, of how many.
        self._back: dict[str, tuple[int, int, int]] = {}
        self._shrunk: dict[str, int] = {}
        pool = self._manager.block_pool.num_gpu_blocks
        self._scarce = int(SCARCE * pool)
        self._limit = int(scheduler.priority_config.park_fraction * pool)

    def shrink(self, level: int) -> None:
        """Preempt requests held back by a step of class ``level`` beyond what may be parked.

        It is not their KV that somebody needs: ``max_preemptions`` does not count it.
        """
        scheduler = self._scheduler
        if self._limit >= self._manager.block_pool.num_gpu_blocks:
            return
        held = sum(map(self.blocks, scheduler.held_requests))
        if held <= self._limit:
            return
        for victim in scheduler.held_victims(level):
            held -= self.blocks(victim)
            self._shrunk[victim.request_id] = self.shrunk(victim) + 1
            scheduler.take_blocks(victim)
            if held <= self._limit:
                return

    def shrunk(self, request: Request) -> int:
        """How often a request has been preempted by :meth:`shrink`."""
        return self._shrunk.get(request.request_id, 0)

    def parked(self) -> list[tuple[int, int]]:
        """(requests, KV blocks) of each class that wait for their turn with their blocks."""
        scheduler = self._scheduler
        parked = [(0, 0) for _ in scheduler.priority_config.classes]
        step = scheduler.in_flight[-1].request_ids if scheduler.in_flight else ()
        busy = scheduler.suspended_ids.union(step)
        for request in scheduler.running:
            if request.request_id not in busy:
                requests, blocks = parked[scheduler.level(request)]
                parked[scheduler.level(request)] = requests + 1, blocks + self.blocks(request)
        return parked

    def spilled_bytes(self) -> list[int]:
        """KV of each class on the host."""
        scheduler = self._scheduler
        held = [0 for _ in scheduler.priority_config.classes]
        if self._spill is not None:
            for request_id, size in self._spill.held().items():
                held[scheduler.level(scheduler.requests[request_id])] += size
        return held

    def blocks(self, request: Request) -> int:
        """KV blocks that a request holds, shared ones included."""
        managers = self._manager.coordinator.single_type_managers
        return sum(len(m.req_to_blocks.get(request.request_id, ())) for m in managers)

    def _shared(self, request: Request) -> int:
        """How many of a request's first blocks others hold, too: its prefix stays cached."""
        (blocks,) = self._manager.get_blocks(request.request_id).blocks
        return sum(1 for _ in itertools.takewhile(lambda b: b.ref_cnt > 1, blocks))

    def price(self, request: Request) -> float:
        """Seconds that taking a block of ``request`` costs, for each block that this frees."""
        if self._spill is None:
            return 0.0
        groups = self._manager.get_blocks(request.request_id).blocks
        gain = sum(b.ref_cnt == 1 for group in groups for b in group)
        seconds = self._spill.restore_seconds(request, self._shared(request))
        return seconds / gain if gain else float("inf")

    def preempting(self, request: Request) -> tuple[int, int]:
        """Spill a request that is about to lose its blocks, if that pays.

        Returns:
            How many tokens it has computed, and how many of them are on the host.
        """
        computed = self._lost[request.request_id] = request.num_computed_tokens
        if self._spill is None:
            return computed, 0
        (ids,) = self._manager.get_block_ids(request.request_id)
        return computed, self._spill.preempt(request, ids, self._shared(request))

    def resumed(self, output: SchedulerOutput) -> None:
        """Note what the requests that come back in a step need not compute again."""
        for request_id in output.scheduled_cached_reqs.resumed_req_ids:
            request = self._scheduler.requests[request_id]
            # vLLM has added the tokens of the step.
            has = request.num_computed_tokens - output.num_scheduled_tokens[request_id]
            lost = self._lost.pop(request_id, 0)
            self._back[request_id] = self._scheduler.level(request), min(has, lost), lost

    def finished(self, request: Request) -> None:
        """Forget a request."""
        self._lost.pop(request.request_id, None)
        self._shrunk.pop(request.request_id, None)

    def forget_all(self) -> None:
        """Forget all KV on the host: what computed it has changed."""
        if self._spill is not None:
            self._spill.forget_all()

    def copy_ahead(self, output: SchedulerOutput) -> None:
        """Let a step copy blocks of its requests, which somebody may need before long."""
        scheduler = self._scheduler
        if self._spill is None or self._manager.block_pool.get_num_free_blocks() > self._scarce:
            return
        cached = output.scheduled_cached_reqs
        for request_id in cached.req_ids:
            # One that has just come back may count blocks that this very step computes.
            if request_id in cached.resumed_req_ids:
                continue
            request = scheduler.requests[request_id]
            if scheduler.level(request) == 0:
                continue
            filled = output.num_scheduled_tokens[request_id] // scheduler.block_size
            (ids,) = self._manager.get_block_ids(request_id)
            shared = self._shared(request)
            self._spill.copy_ahead(request, ids, CATCH_UP + filled, shared)

    def restored_by(self, output: SchedulerOutput) -> frozenset[int]:
        """Blocks that a step copies back; until it completes nobody knows whether it could."""
        copies = output.kv_connector_metadata
        return (
            frozenset(b for _, b in copies.restores) if isinstance(copies, Copies) else frozenset()
        )

    def restoring(self, output: SchedulerOutput) -> dict[str, list[int]]:
        """Blocks of each request in a step that copies any back: what may have to be forgotten."""
        if not self.restored_by(output):
            return {}
        return {i: self._manager.get_block_ids(i)[0] for i in output.num_scheduled_tokens}

    def completed(self, step: Step, seconds: float, output: KVConnectorOutput | None) -> None:
        """Learn from a step that took ``seconds``, after vLLM has applied its results."""
        if self._spill is not None:
            self._copied(step, seconds, output)
        for request_id in step.request_ids:
            if request_id in self._back:
                level, kept, lost = self._back.pop(request_id)
                self._scheduler.accounting.came_back(request_id, level, kept, lost - kept)

    def _copied(self, step: Step, seconds: float, output: KVConnectorOutput | None) -> None:
        assert self._spill is not None
        lost = output.invalid_block_ids if output is not None else set()
        report = output.kv_connector_worker_meta if output is not None else None
        if isinstance(report, CopyReport):
            self._scheduler.accounting.copied(step, report, report.errors + len(lost))
            seconds -= report.offload_seconds + report.restore_seconds
        if step.decode_rows is None and not step.abandoned:
            self._spill.costs.computed(sum(step.request_ids.values()), seconds)
        if lost:
            self._rewind(step, lost)
        self._spill.restored(step.request_ids)

    def _rewind(self, step: Step, failed: set[int]) -> None:
        """Take back all that was computed on top of blocks which could not be restored.

        vLLM does so for the first request that holds such a block, and trusts that it computes the
        block again before any other needs it, which more urgent work may delay; and what the step
        computed behind the block stays in the prefix cache. So does all of a request that is gone.
        """
        size = self._scheduler.block_size
        for request_id, ids in step.restoring.items():
            first = next((i for i, block in enumerate(ids) if block in failed), None)
            if first is None:
                continue
            self._manager.evict_blocks(set(ids[first:]))
            request = self._scheduler.requests.get(request_id)
            if request is None:
                continue
            request.num_computed_tokens = min(request.num_computed_tokens, first * size)
            if request_id in self._back:
                level, kept, lost = self._back[request_id]
                self._back[request_id] = level, min(kept, first * size), lost
            request.is_prefill_chunk = True
