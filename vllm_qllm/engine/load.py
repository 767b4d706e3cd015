# SPDX-License-Identifier: Apache-2.0
"""How much work each class has, and how long each has been held back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm.v1.request import Request, RequestStatus

from vllm_qllm.engine.step import Step
from vllm_qllm.policy import ClassView

if TYPE_CHECKING:
    from vllm_qllm.engine.scheduler import PriorityScheduler


def _is_compiling(request: Request) -> bool:
    """Whether the grammar of a waiting request is not ready; no arrival will tell when it is."""
    structured = request.structured_output_request
    return (
        request.status == RequestStatus.WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR
        and structured is not None
        and not structured.grammar
    )


def _is_blocked(request: Request) -> bool:
    """Whether a waiting request could not be scheduled now, whatever the plan."""
    return _is_compiling(request) or request.status in (
        RequestStatus.WAITING_FOR_REMOTE_KVS,
        RequestStatus.WAITING_FOR_STREAMING_REQ,
    )


class LoadMeter:
    """Counts per class for the policy. Times are ``time.monotonic()`` seconds."""

    def __init__(self, scheduler: PriorityScheduler) -> None:
        self._scheduler = scheduler
        # When each class last led a step, or got work after having none.
        self._since: list[float | None] = [None] * len(scheduler.priority_config.classes)

    def classes(self, now: float) -> tuple[ClassView, ...]:
        """One view a class, most urgent first; requests of suspended steps are left out."""
        scheduler = self._scheduler
        ranks = range(len(self._since))
        prefilling = [0 for _ in ranks]
        decoding = [0 for _ in ranks]
        suspended = scheduler.suspended_ids
        for request in scheduler.running:
            if request.request_id in suspended:
                continue
            counts = prefilling if request.is_prefill_chunk else decoding
            counts[scheduler.rank(request)] += 1
        blocked = self.blocked()
        views = []
        for rank in ranks:
            waiting = self.queued(rank) - blocked[rank]
            if not (waiting or prefilling[rank] or decoding[rank]):
                self._since[rank] = None
            elif self._since[rank] is None:
                self._since[rank] = now
            starved = now - (self._since[rank] or now)
            views.append(ClassView(rank, waiting, prefilling[rank], decoding[rank], starved))
        return tuple(views)

    def queued(self, rank: int) -> int:
        """Requests of class ``rank`` that are not admitted, blocked or not."""
        scheduler = self._scheduler
        return scheduler.waiting.count(rank) + scheduler.kv_holding_waiting.count(rank)

    def blocked(self) -> list[int]:
        """Waiting requests a class that cannot be scheduled yet, whatever the plan."""
        counts = [0] * len(self._since)
        for request in self._scheduler.deferred_waiting:
            if _is_blocked(request):
                counts[self._scheduler.rank(request)] += 1
        return counts

    def compiling(self, limit: int) -> bool:
        """Whether a request of a class below ``limit`` waits for its grammar alone."""
        waiting = (r for r in self._scheduler.deferred_waiting if _is_compiling(r))
        return any(self._scheduler.rank(r) < limit for r in waiting)

    def prompt_tokens(self, rank: int) -> int:
        """Prompt tokens that the next step of class ``rank`` has at least to compute.

        Those of its admitted requests and of the first waiting one, within the token budget;
        cached prefixes are not looked up, so it may be less.
        """
        scheduler = self._scheduler
        suspended = scheduler.suspended_ids
        tokens = sum(
            r.num_tokens - r.num_computed_tokens
            for r in scheduler.running
            if r.is_prefill_chunk and scheduler.rank(r) == rank and r.request_id not in suspended
        )
        first = scheduler.waiting.first(rank)
        if first is not None:
            on_host = scheduler.spill.tokens(first.request_id) if scheduler.spill else 0
            tokens += first.num_tokens - on_host
        return min(tokens, scheduler.max_num_scheduled_tokens)

    def any_work(self) -> bool:
        """Whether anything but blocked requests is there to schedule."""
        running, waiting = self._scheduler.get_request_counts()
        return running > 0 or waiting > sum(self.blocked())

    def ran(self, step: Step, now: float) -> None:
        """Note that ``step``'s class has the machine, or had it until ``now``."""
        if step.request_ids:
            self._since[step.rank] = now
