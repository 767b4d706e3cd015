# SPDX-License-Identifier: Apache-2.0
"""Giving up a suspended step: its KV blocks are needed, or an operator's call waits for its end."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

from vllm.v1.request import Request, RequestStatus

from vllm_qllm.engine.load import is_decoding
from vllm_qllm.engine.step import Step

if TYPE_CHECKING:
    from vllm_qllm.engine.scheduler import PriorityScheduler


class Abandonment:
    """Decides for one scheduler which steps are given up, and takes back what they had begun.

    A request that is held back loses its blocks to more urgent ones; one in a suspended step
    cannot, because its step would go on writing them. Letting that step end first would make the
    urgent request wait for all of it. So the step is given up where it stands: its requests are
    held back like all others, as if they had never been in it, and what is lost is its work.
    """

    def __init__(self, scheduler: PriorityScheduler) -> None:
        self._scheduler = scheduler
        self._manager = scheduler.kv_cache_manager
        # Requests that the last ``schedule()`` left without blocks, and that would find them.
        self._lacking: set[str] = set()
        # How many steps of each request have been given up.
        self._times: Counter[str] = Counter()

    # -- whether -------------------------------------------------------------------------------

    @property
    def wanted(self) -> bool:
        """Whether a request waits for blocks that giving up suspended steps would leave it."""
        return not self._lacking.isdisjoint(self._scheduler.requests)

    def begin(self) -> None:
        """Before ``schedule()``: who lacks blocks is to be seen."""
        self._lacking.clear()

    def note(self, request: Request, lacking: bool) -> None:
        """Record whether giving steps up would satisfy this request; later calls override."""
        if lacking:
            self._lacking.add(request.request_id)
        else:
            self._lacking.discard(request.request_id)

    def victims(self, level: int) -> list[Request]:
        """Requests of suspended steps that may be given up for class ``level``.

        A step ends before the one that it runs on top of, so the first that may not be given up
        protects all below it.
        """
        scheduler = self._scheduler
        found: list[Request] = []
        for step in reversed(scheduler.suspended):
            requests = self._requests(step)
            may_end = step.level > level and not step.restoring
            if not may_end or not all(map(self._may_lose, requests)):
                break
            found += requests
        return found

    def may_end(self, step: Step, losing: bool) -> bool:
        """Whether a suspended step may be given up for a call that waits for its end.

        Args:
            step: the one that was suspended last.
            losing: whether its requests go on afterwards, and lose its work. They are protected as
                from more urgent requests, or calls that come often would starve them.
        """
        if step.restoring:
            return False
        return not losing or all(map(self._may_lose, self._requests(step)))

    def unwanted(self, step: Step) -> bool:
        """Whether nobody waits for a suspended step: its requests have all been aborted."""
        aborted = {request_id for request_id, _ in step.pending_aborts}
        return not step.restoring and step.request_ids.keys() <= aborted

    def _requests(self, step: Step) -> list[Request]:
        known = self._scheduler.requests
        return [known[request_id] for request_id in step.request_ids if request_id in known]

    def _may_lose(self, request: Request) -> bool:
        """Whether a request may lose the work of one more step, and then its blocks."""
        most = self._scheduler.priority_config.max_preemptions
        return self._scheduler.may_lose(request) and self._times[request.request_id] < most

    def finished(self, request: Request) -> None:
        """Forget a request."""
        self._times.pop(request.request_id, None)

    # -- how -----------------------------------------------------------------------------------

    def give_up(self, step: Step) -> None:
        """Let the step that was suspended last end where it stands."""
        step.abandoned = True
        self._lacking.clear()
        self._times.update(step.request_ids.keys())

    def ending(self, step: Step) -> dict[str, int]:
        """Before vLLM applies the results of a step that was given up: it has none.

        Returns:
            Tokens that each of its requests had computed before it.
        """
        # vLLM has registered the hashes of blocks that are never written now.
        self._manager.evict_blocks(set(step.unwritten_blocks))
        scheduler = self._scheduler
        computed = {}
        for request_id, tokens in step.request_ids.items():
            request = scheduler.requests.get(request_id)
            if request is not None:
                scheduler.accounting.abandoned(request, tokens)
                computed[request_id] = request.num_computed_tokens - tokens
        return computed

    def ended(self, step: Step, computed: dict[str, int]) -> None:
        """After that: take back the tokens that vLLM counts as computed since the step began."""
        for request_id, before in computed.items():
            request = self._scheduler.requests.get(request_id)
            if request is None:
                continue
            request.num_computed_tokens = min(request.num_computed_tokens, before)
            request.is_prefill_chunk = not is_decoding(request)
            self._drop_hits(request, step)

    def _drop_hits(self, request: Request, step: Step) -> None:
        """Take the blocks of a request that counts some as computed which ``step`` did not write.

        vLLM lets a request hit blocks that another one of the same step computes.
        """
        scheduler = self._scheduler
        before = valid = request.num_computed_tokens
        for manager, blocks in zip(
            self._manager.coordinator.single_type_managers,
            self._manager.get_block_ids(request.request_id),
            strict=True,
        ):
            size = manager.block_size
            for i, block in enumerate(blocks[: before // size]):
                if block in step.unwritten_blocks:
                    valid = min(valid, i * size)
        if valid < before and request.status == RequestStatus.RUNNING:
            request.num_computed_tokens = valid  # what may be kept on the host
            scheduler.running.remove(request)
            scheduler._preempt_request(request, time.monotonic())
