# SPDX-License-Identifier: Apache-2.0
"""vLLM's requests, as classes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator

from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import Request

from vllm_qllm.config import PriorityConfig
from vllm_qllm.engine.class_queue import ClassQueue
from vllm_qllm.engine.flight import Flight


class Requests:
    """The requests of one scheduler by class, and who is held back.

    Takes the place of both queues of vLLM's scheduler.

    Args:
        scheduler: vLLM's part of it.
        config: its classes.
        flight: its steps.

    Attributes:
        held: admitted requests that the step which is put together leaves out, those of suspended
            steps included; empty between steps, when they are in ``running`` again.
    """

    def __init__(self, scheduler: Scheduler, config: PriorityConfig, flight: Flight) -> None:
        self._scheduler = scheduler
        self._config = config
        self._flight = flight
        classes = len(config.classes)
        self.levels = range(classes)
        self._waiting = ClassQueue(self.level, classes)
        self._holding = ClassQueue(self.level, classes)
        scheduler.waiting = self._waiting
        scheduler.kv_holding_waiting = self._holding
        self.held: list[Request] = []

    def level(self, request: Request) -> int:
        """Class of a request; 0 is the most urgent. Any thread may ask."""
        level: int | None = getattr(request, "priority_level", None)
        if level is None:  # asked for several times a step, so it is worked out once
            level = request.priority_level = self._config.level(request.priority)  # type: ignore[attr-defined]
        return level

    # -- admitted ------------------------------------------------------------------------------

    @property
    def running(self) -> list[Request]:
        """The admitted requests but for ``held`` ones; vLLM's own list, which it replaces."""
        return self._scheduler.running

    @property
    def admitted(self) -> Iterator[Request]:
        """All of them."""
        return itertools.chain(self.running, self.held)

    @property
    def held_back(self) -> list[Request]:
        """Those of ``held`` that are in no suspended step."""
        if not self._flight.suspended:
            return list(self.held)
        suspended = self._flight.suspended_ids
        return [r for r in self.held if r.request_id not in suspended]

    @property
    def any_running(self) -> bool:
        """Whether any request is admitted."""
        return bool(self.running or self.held)

    def known(self, request_id: str) -> Request | None:
        """The request of this id unless it has ended."""
        return self._scheduler.requests.get(request_id)

    def living(self, request_ids: Iterable[str]) -> list[Request]:
        """Those of these requests that have not ended, in order."""
        found = map(self.known, request_ids)
        return [request for request in found if request is not None]

    def preempt_held(self, request: Request) -> None:
        """Take the KV blocks of one of ``held``, which then waits again."""
        self.held.remove(request)
        self._scheduler._preempt_request(request, time.monotonic())

    def preempt_running(self, request: Request) -> None:
        """Take the KV blocks of one of ``running``, which then waits again."""
        self.running.remove(request)
        self._scheduler._preempt_request(request, time.monotonic())

    # -- waiting -------------------------------------------------------------------------------

    def waiting(self, level: int) -> Iterator[Request]:
        """Requests of a class that are not admitted, in the order in which they will be."""
        return itertools.chain(self._holding.of(level), self._waiting.of(level))

    def count_waiting(self, level: int) -> int:
        """How many these are."""
        return self._holding.count(level) + self._waiting.count(level)

    @property
    def waiting_in_all(self) -> int:
        """How many there are of all classes."""
        return len(self._holding) + len(self._waiting)

    def next_prompt(self, level: int) -> Request | None:
        """The first request of a class that waits and holds no KV blocks."""
        return self._waiting.first(level)

    @property
    def deferred(self) -> set[Request]:
        """Waiting requests that vLLM has found to wait for something else than their turn."""
        return self._scheduler.deferred_waiting

    def show(self, level: int | None) -> None:
        """Let vLLM admit requests of class ``level`` only, or with None of all classes."""
        self._waiting.show(level)
        self._holding.show(level)
