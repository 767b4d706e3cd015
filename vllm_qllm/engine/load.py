# SPDX-License-Identifier: Apache-2.0
"""What a policy sees of the classes: their work, and how long each has been held back."""

from __future__ import annotations

from collections.abc import Sequence

from vllm_qllm.config import PriorityClass
from vllm_qllm.engine.census import Census, ClassRecord
from vllm_qllm.engine.requests import Requests
from vllm_qllm.engine.step import Step
from vllm_qllm.policy import ClassView, Service


class LoadMeter:
    """Follows work and service of one scheduler's classes.

    Times are ``time.monotonic()`` seconds.

    Args:
        classes: most urgent first.
        requests: of the scheduler.
        census: of these.
    """

    def __init__(
        self, classes: Sequence[PriorityClass], requests: Requests, census: Census
    ) -> None:
        self._requests = requests
        self._census = census
        self._service = Service(classes)

    def classes(self, now: float) -> tuple[ClassView, ...]:
        """One view a class, most urgent first; requests of suspended steps are left out."""
        service = self._service
        records, blocked = self._note(now)
        views = []
        for record, n in zip(records, blocked, strict=True):
            level = record.level
            work = record.waiting - n, record.prefilling, record.decoding
            starved = service.starved(level) if any(work) else 0.0
            views.append(ClassView(level, *work, starved, service.owed(level)))
        return tuple(views)

    def _note(self, now: float) -> tuple[list[ClassRecord], list[int]]:
        """Tell the service which work there is."""
        records, blocked = self._census.take(), self._census.blocked()
        self._service.note(
            [
                (
                    record.waiting > n or record.prefilling > 0 or record.suspended_prompts,
                    record.decoding > 0 or record.suspended_decodes,
                )
                for record, n in zip(records, blocked, strict=True)
            ],
            now,
        )
        return records, blocked

    def any_work(self) -> bool:
        """Whether anything but blocked requests is there to schedule."""
        return self._requests.any_running or self._requests.waiting_in_all > sum(
            self._census.blocked()
        )

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
