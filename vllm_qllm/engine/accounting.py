# SPDX-License-Identifier: Apache-2.0
"""From what the scheduler does to the numbers on ``/metrics``, by class, and to the timeline."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vllm.v1.request import Request, RequestStatus

from vllm_qllm.engine.step import Step
from vllm_qllm.execution.protocol import Place
from vllm_qllm.kv.copies import CopyReport
from vllm_qllm.metrics.pulse import Pulse
from vllm_qllm.metrics.recorder import Recorder
from vllm_qllm.timeline.log import TimelineLog

if TYPE_CHECKING:
    from vllm_qllm.engine.scheduler import PriorityScheduler

OUTCOME = {
    RequestStatus.FINISHED_LENGTH_CAPPED: "length",
    RequestStatus.FINISHED_IGNORED: "length",
    RequestStatus.FINISHED_ABORTED: "abort",
    RequestStatus.FINISHED_ERROR: "error",
    RequestStatus.FINISHED_REPETITION: "repetition",
}


@dataclass(slots=True)
class Clock:
    """One request's times, ``time.monotonic()`` seconds, and its tokens so far.

    ``serial`` is its number in the timeline.
    """

    level: int
    arrived: float
    serial: int = 0
    started: float | None = None
    first_token: float | None = None
    tokens: int = 0


class Accounting:
    """Follows every request of one scheduler from arrival to end.

    Args:
        scheduler: whose requests and steps these are.
        recorder: of the numbers on ``/metrics``.
        pulse: that others read to see whether the engine goes on.
        log: of the timeline; None when it is off.
    """

    def __init__(
        self,
        scheduler: PriorityScheduler,
        recorder: Recorder,
        pulse: Pulse,
        log: TimelineLog | None = None,
    ) -> None:
        self._scheduler = scheduler
        self._recorder = recorder
        self._pulse = pulse
        self._log = log
        self._clocks: dict[str, Clock] = {}

    def arrived(self, request: Request) -> None:
        """Start the clock, at the moment the IO thread noted if there is one."""
        if request.request_id in self._clocks:
            return
        arrived = getattr(request, "priority_arrived", None) or time.monotonic()
        clock = Clock(self._scheduler.level(request), arrived)
        self._clocks[request.request_id] = clock
        if self._log is not None:
            clock.serial = self._log.request_arrived(
                clock.level,
                request.request_id,
                request.num_prompt_tokens,
                request.max_tokens,
                arrived,
            )

    def scheduled(self, step: Step, now: float) -> None:
        """Note the first work of each request in ``step``, and who waits."""
        log = self._log
        if log is not None and step.request_ids:
            log.step_started(step, len(self._scheduler.in_flight) - 1, now)
        for request_id in step.request_ids:
            clock = self._clocks.get(request_id)
            if clock is not None and clock.started is None:
                clock.started = now
                self._recorder.response(clock.level, now - clock.arrived)
                if log is not None:
                    response = now - clock.arrived
                    log.request_started(clock.level, clock.serial, step, response, now)
        if step.request_ids and len(self._scheduler.in_flight) > 1:
            self._recorder.nested_step(self._scheduler.in_flight[-2].level, step.level)
        self._gauges(now)
        # While a step is in flight, requests outside it wait.
        self._kv(now)

    def completed(self, step: Step, requests: Iterable[Request], now: float) -> None:
        """Note the end of ``step``, new tokens, and the end of requests that are done."""
        if self._log is not None and step.request_ids:
            self._log.step_finished(step, len(self._scheduler.in_flight), now)
        for request in requests:
            clock = self._clocks.get(request.request_id)
            if clock is None:
                continue
            new = request.num_output_tokens - clock.tokens
            if new > 0:
                if clock.first_token is None:
                    clock.first_token = now
                    self._recorder.first_token(clock.level, now - clock.arrived)
                    self._recorder.prompt_tokens(clock.level, request.num_prompt_tokens)
                    if self._log is not None:
                        self._log.request_first_token(clock.level, clock.serial, now)
                clock.tokens += new
                self._recorder.generated_tokens(clock.level, new)
            if request.is_finished():
                self.finished(request, now)
        self._gauges(now)
        if not self._scheduler.running:
            self._kv(now)

    def finished(self, request: Request, now: float) -> None:
        """Stop the clock; a second call for the same request does nothing."""
        clock = self._clocks.pop(request.request_id, None)
        if clock is None:
            return
        per_token = None
        if clock.first_token is not None and clock.tokens > 1:
            per_token = (now - clock.first_token) / (clock.tokens - 1)
        outcome = OUTCOME.get(request.status, "stop")
        self._recorder.finished(clock.level, outcome, now - clock.arrived, per_token)
        if self._log is not None:
            self._log.request_finished(clock.level, clock.serial, clock.tokens, outcome, now)

    def preempted(self, request: Request, computed: int, spilled: int) -> None:
        """Note that a request lost its KV blocks: ``spilled`` of its ``computed`` tokens stay."""
        self._recorder.preemption(self._scheduler.level(request))
        clock = self._clocks.get(request.request_id)
        if self._log is not None and clock is not None:
            now = time.monotonic()
            self._log.request_preempted(clock.level, clock.serial, computed, spilled, now)

    def came_back(self, request_id: str, level: int, saved: int, again: int) -> None:
        """Note that a preempted request kept ``saved`` tokens and computes others ``again``."""
        self._recorder.came_back(level, saved, again)
        clock = self._clocks.get(request_id)
        if self._log is not None and clock is not None:
            self._log.request_resumed(level, clock.serial, saved, again, time.monotonic())

    def abandoned(self, request: Request, tokens: int) -> None:
        """Note that a step of a request was given up, which computes its ``tokens`` again."""
        self._recorder.abandoned(self._scheduler.level(request), tokens)

    def copied(self, step: Step, report: CopyReport, failed: int) -> None:
        """Note what the copies of ``step`` took; ``failed`` blocks could not be copied."""
        if report.restored:
            self._recorder.restored_in(step.level, report.restore_seconds)
        if failed:
            self._recorder.spill_errors(step.level, failed)
        if self._log is not None and (report.offloaded or report.restored):
            depth = len(self._scheduler.in_flight)
            self._log.step_copied(step, depth, report, failed, time.monotonic())

    def suspended(self, step: Step, place: Place, by: int | None, now: float) -> None:
        """Note that ``step`` stopped for class ``by``, or None: its time slice ended."""
        self._recorder.suspension(step.level, by)
        if self._log is not None:
            self._log.step_suspended(step, len(self._scheduler.in_flight) - 1, place, by, now)
        self._gauges(now)

    def resumed(self, step: Step, seconds: float, now: float) -> None:
        """Note that ``step`` goes on after ``seconds``."""
        self._recorder.suspended_for(step.level, seconds)
        if self._log is not None:
            self._log.step_resumed(step, len(self._scheduler.in_flight) - 1, now)
        self._gauges(now)

    def progressed(self, now: float) -> None:
        """Note that the engine goes on, and whether it is to go on from here."""
        scheduler = self._scheduler
        busy = any(step.request_ids for step in scheduler.in_flight)
        # A paused engine, and one whose requests all wait for something else, is not at work.
        busy |= scheduler.get_num_unfinished_requests() > 0 and scheduler.load.any_work()
        self._pulse.beat(now, busy)

    def _gauges(self, now: float) -> None:
        self.progressed(now)
        scheduler = self._scheduler
        levels = range(len(scheduler.priority_config.classes))
        running = [0 for _ in levels]
        suspended = [0 for _ in levels]
        suspended_ids = scheduler.suspended_ids
        for request in scheduler.running:
            counts = suspended if request.request_id in suspended_ids else running
            counts[scheduler.level(request)] += 1
        for level in levels:
            waiting = scheduler.load.queued(level)
            self._recorder.running(level, running[level])
            self._recorder.suspended(level, suspended[level])
            self._recorder.waiting(level, waiting)
            if self._log is not None:
                self._log.queue(level, waiting, running[level], suspended[level], now)

    def _kv(self, now: float) -> None:
        parking = self._scheduler.parking
        numbers = zip(parking.parked(), parking.spilled_bytes(), strict=True)
        for level, ((requests, blocks), size) in enumerate(numbers):
            self._recorder.parked(level, requests, blocks)
            self._recorder.spilled(level, size)
            if self._log is not None:
                self._log.kv(level, requests, blocks, size, now)

    def close(self) -> None:
        """Let go of what others read."""
        self._recorder.close()
        self._pulse.close()
        if self._log is not None:
            self._log.close()
