# SPDX-License-Identifier: Apache-2.0
"""What becomes of the KV of requests that have to wait: parked in place, spilled, or recomputed."""

from __future__ import annotations

from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.outputs import KVConnectorOutput
from vllm.v1.request import Request

from vllm_qllm.engine.accounting import Accounting
from vllm_qllm.engine.blocks import Blocks
from vllm_qllm.engine.requests import Requests
from vllm_qllm.engine.step import Step
from vllm_qllm.kv.copies import Copies, CopyReport
from vllm_qllm.kv.spill import Spill

# Blocks are copied ahead once less than this fraction of them is free.
SCARCE = 0.5
# And so many of each request in a step of its own, besides as many as the step fills.
CATCH_UP = 2


class Parking:
    """Decides for one scheduler, and keeps the host's side of it up to date.

    A held-back request is parked in place: it keeps its blocks while nobody more urgent needs
    them and all parked requests together hold no more than ``park_fraction`` of the pool. One
    that loses them is spilled if that pays, else computed again.

    Args:
        requests, blocks, accounting: of the scheduler.
        spill: KV on the host; None if nothing is kept there.
        block_size: tokens of a block.
    """

    def __init__(
        self,
        requests: Requests,
        blocks: Blocks,
        accounting: Accounting,
        spill: Spill | None,
        block_size: int,
    ) -> None:
        self._requests = requests
        self._blocks = blocks
        self._accounting = accounting
        self._spill = spill
        self._block_size = block_size
        # Tokens that a preempted request had computed.
        self._lost: dict[str, int] = {}
        # While the step runs that resumes it: its class, how many of them are left, of how many.
        self._back: dict[str, tuple[int, int, int]] = {}
        self._scarce = int(SCARCE * blocks.total)

    def on_host(self, request_id: str) -> int:
        """Tokens of a waiting request that need not be computed again."""
        return self._spill.tokens(request_id) if self._spill is not None else 0

    def spilled_bytes(self) -> list[int]:
        """KV of each class on the host."""
        held = [0 for _ in self._requests.levels]
        if self._spill is not None:
            for request_id, size in self._spill.held().items():
                request = self._requests.known(request_id)
                assert request is not None
                held[self._requests.level(request)] += size
        return held

    def price(self, request: Request) -> float:
        """Seconds that taking a block of ``request`` costs, for each block that this frees."""
        if self._spill is None:
            return 0.0
        gain = self._blocks.alone(request)
        seconds = self._spill.restore_seconds(request, self._blocks.shared(request))
        return seconds / gain if gain else float("inf")

    def preempting(self, request: Request) -> tuple[int, int]:
        """Spill a request that is about to lose its blocks, if that pays.

        Returns:
            How many tokens it has computed, and how many of them are on the host.
        """
        computed = self._lost[request.request_id] = request.num_computed_tokens
        if self._spill is None:
            return computed, 0
        (ids,) = self._blocks.manager.get_block_ids(request.request_id)
        return computed, self._spill.preempt(request, ids, self._blocks.shared(request))

    def resumed(self, output: SchedulerOutput) -> None:
        """Note what the requests that come back in a step need not compute again."""
        for request_id in output.scheduled_cached_reqs.resumed_req_ids:
            request = self._requests.known(request_id)
            assert request is not None
            # vLLM has added the tokens of the step.
            has = request.num_computed_tokens - output.num_scheduled_tokens[request_id]
            lost = self._lost.pop(request_id, 0)
            self._back[request_id] = self._requests.level(request), min(has, lost), lost

    def finished(self, request: Request) -> None:
        """Forget a request."""
        self._lost.pop(request.request_id, None)

    def forget_all(self) -> None:
        """Forget all KV on the host: what computed it has changed."""
        if self._spill is not None:
            self._spill.forget_all()

    def copy_ahead(self, output: SchedulerOutput) -> None:
        """Let a step copy blocks of its requests, which somebody may need before long."""
        if self._spill is None or self._blocks.free > self._scarce:
            return
        cached = output.scheduled_cached_reqs
        for request_id in cached.req_ids:
            # One that has just come back may count blocks that this very step computes.
            if request_id in cached.resumed_req_ids:
                continue
            request = self._requests.known(request_id)
            assert request is not None
            if self._requests.level(request) == 0:
                continue
            filled = output.num_scheduled_tokens[request_id] // self._block_size
            (ids,) = self._blocks.manager.get_block_ids(request_id)
            shared = self._blocks.shared(request)
            self._spill.copy_ahead(request, ids, CATCH_UP + filled, shared)

    def restored_by(self, output: SchedulerOutput) -> frozenset[int]:
        """Blocks that a step copies back; until it completes nobody knows whether it could."""
        copies = output.kv_connector_metadata
        restores = copies.restores if isinstance(copies, Copies) else []
        return frozenset(block for _, block in restores)

    def restoring(self, output: SchedulerOutput) -> dict[str, list[int]]:
        """Blocks of each request in a step that copies any back: what may have to be forgotten."""
        if not self.restored_by(output):
            return {}
        return {i: self._blocks.manager.get_block_ids(i)[0] for i in output.num_scheduled_tokens}

    def completed(self, step: Step, seconds: float, output: KVConnectorOutput | None) -> None:
        """Learn from a step that took ``seconds``, after vLLM has applied its results."""
        if self._spill is not None:
            self._copied(step, seconds, output)
        for request_id in step.request_ids:
            if request_id in self._back:
                level, kept, lost = self._back.pop(request_id)
                self._accounting.came_back(request_id, level, kept, lost - kept)

    def _copied(self, step: Step, seconds: float, output: KVConnectorOutput | None) -> None:
        assert self._spill is not None
        lost = output.invalid_block_ids if output is not None else set()
        report = output.kv_connector_worker_meta if output is not None else None
        if isinstance(report, CopyReport):
            self._accounting.copied(step, report, report.errors + len(lost))
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
        size = self._block_size
        for request_id, ids in step.restoring.items():
            first = next((i for i, block in enumerate(ids) if block in failed), None)
            if first is None:
                continue
            self._blocks.forget(ids[first:])
            request = self._requests.known(request_id)
            if request is None:
                continue
            request.num_computed_tokens = min(request.num_computed_tokens, first * size)
            if request_id in self._back:
                level, kept, lost = self._back[request_id]
                self._back[request_id] = level, min(kept, first * size), lost
            request.is_prefill_chunk = True
