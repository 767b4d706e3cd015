# SPDX-License-Identifier: Apache-2.0
"""How much work each class has, and how long each has been held back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm.v1.request import Request, RequestStatus

from vllm_qllm.engine.step import Step
from vllm_qllm.policy import ClassView, Service

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


def is_decoding(request: Request) -> bool:
    """Whether an admitted request has its prompt computed, and its last token is next.

    Not by ``is_prefill_chunk``: that is still set when a prompt that is computed again, after a
    loss of its blocks, was left with one token, which is then computed as any decode.
    """
    missing = request.num_tokens - request.num_computed_tokens
    return missing <= 1 and request.num_output_tokens > 0


class LoadMeter:
    """Counts per class for the policy. Times are ``time.monotonic()`` seconds."""

    def __init__(self, scheduler: PriorityScheduler) -> None:
        self._scheduler = scheduler
        self._levels = range(len(scheduler.priority_config.classes))
        self._service = Service(scheduler.priority_config.classes)

    def classes(self, now: float) -> tuple[ClassView, ...]:
        """One view a class, most urgent first; requests of suspended steps are left out."""
        service = self._service
        waiting, prefilling, decoding = self._note(now)
        views = []
        for level in self._levels:
            work = waiting[level], prefilling[level], decoding[level]
            starved = service.starved(level) if any(work) else 0.0
            views.append(ClassView(level, *work, starved, service.owed(level)))
        return tuple(views)

    def _note(self, now: float) -> tuple[list[int], list[int], list[int]]:
        """Count, by class, what waits, prefills and decodes; the service is told."""
        scheduler = self._scheduler
        prefilling = [0 for _ in self._levels]
        decoding = [0 for _ in self._levels]
        suspended = {name: n for s in scheduler.suspended for name, n in s.request_ids.items()}
        in_steps = [[False, False] for _ in self._levels]
        for request in scheduler.running:
            level = scheduler.level(request)
            tokens = suspended.get(request.request_id)
            if tokens is not None:
                decodes = tokens == 1 and request.num_output_tokens > 0
                in_steps[level][decodes] = True
            else:
                (decoding if is_decoding(request) else prefilling)[level] += 1
        blocked = self.blocked()
        waiting = [self.queued(level) - blocked[level] for level in self._levels]
        self._service.note(
            [
                (waiting[r] > 0 or prefilling[r] > 0 or prompts, decoding[r] > 0 or decodes)
                for r, (prompts, decodes) in enumerate(in_steps)
            ],
            now,
        )
        return waiting, prefilling, decoding

    def queued(self, level: int) -> int:
        """Requests of class ``level`` that are not admitted, blocked or not."""
        scheduler = self._scheduler
        return scheduler.waiting.count(level) + scheduler.kv_holding_waiting.count(level)

    def blocked(self) -> list[int]:
        """Waiting requests a class that cannot be scheduled yet, whatever the plan."""
        counts = [0 for _ in self._levels]
        for request in self._scheduler.deferred_waiting:
            if _is_blocked(request):
                counts[self._scheduler.level(request)] += 1
        return counts

    def compiling(self, limit: int) -> bool:
        """Whether a request of a class below ``limit`` waits for its grammar alone."""
        waiting = (r for r in self._scheduler.deferred_waiting if _is_compiling(r))
        return any(self._scheduler.level(r) < limit for r in waiting)

    def prompt_tokens(self, level: int) -> int:
        """Prompt tokens that the next step of class ``level`` has at least to compute.

        Those of its admitted requests and of the first waiting one, within the token budget;
        cached prefixes are not looked up, so it may be less.
        """
        scheduler = self._scheduler
        suspended = scheduler.suspended_ids
        tokens = sum(
            r.num_tokens - r.num_computed_tokens
            for r in scheduler.running
            if not is_decoding(r) and scheduler.level(r) == level and r.request_id not in suspended
        )
        first = scheduler.waiting.first(level)
        if first is not None:
            on_host = scheduler.spill.tokens(first.request_id) if scheduler.spill else 0
            tokens += first.num_tokens - on_host
        return min(tokens, scheduler.max_num_scheduled_tokens)

    def any_work(self) -> bool:
        """Whether anything but blocked requests is there to schedule."""
        running, waiting = self._scheduler.get_request_counts()
        return running > 0 or waiting > sum(self.blocked())

    # -- who has the machine -------------------------------------------------------------------

    def started(self, step: Step, now: float, charged: bool) -> None:
        """Note that ``step`` starts or goes on; ``charged``: for its own class's sake."""
        if step.request_ids:
            self._service.started(step.level, now, step.riding, charged)
        else:
            self._service.stopped(now)
            self._note(now)  # what had work may have been aborted

    def ended(self, now: float) -> None:
        """Note that the step which ran is over or suspended, and which work there is then."""
        self._service.ended(now)
        self._note(now)

    def owed(self, level: int) -> float:
        """Seconds of the machine that class ``level`` is to be given now."""
        return self._service.owed(level)

    def refused(self, level: int, now: float) -> None:
        """Note that nothing of class ``level`` could be scheduled, although it has work."""
        self._service.refused(level, now)
