# SPDX-License-Identifier: Apache-2.0
"""From what the scheduler does to the numbers on ``/metrics``, by class, and to the timeline."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from vllm.v1.request import Request, RequestStatus

from vllm_qllm.engine.census import ClassRecord
from vllm_qllm.engine.flight import Flight
from vllm_qllm.engine.progress import Progress, ProgressTable
from vllm_qllm.engine.step import Step
from vllm_qllm.execution.protocol import Place
from vllm_qllm.kv.copies import CopyReport
from vllm_qllm.metrics.recorder import Recorder
from vllm_qllm.timeline.log import TimelineLog

OUTCOME = {
    RequestStatus.FINISHED_LENGTH_CAPPED: "length",
    RequestStatus.FINISHED_IGNORED: "length",
    RequestStatus.FINISHED_ABORTED: "abort",
    RequestStatus.FINISHED_ERROR: "error",
    RequestStatus.FINISHED_REPETITION: "repetition",
}


class Accounting:
    """Is told what happens; asks nobody but for the steps in flight.

    Args:
        flight: steps of the scheduler.
        progress: of its requests; followed here.
        recorder: of the numbers on ``/metrics``.
        log: of the timeline; None when it is off.
    """

    def __init__(
        self,
        flight: Flight,
        progress: ProgressTable,
        recorder: Recorder,
        log: TimelineLog | None = None,
    ) -> None:
        self._flight = flight
        self._progress = progress
        self._recorder = recorder
        self._log = log

    # -- requests ------------------------------------------------------------------------------

    def arrived(self, request: Request, level: int) -> None:
        """A request of class ``level`` is there."""
        progress = self._progress.arrived(request, level)
        if progress is not None and self._log is not None:
            prompt, most = request.num_prompt_tokens, request.max_tokens
            progress.serial = self._log.request_arrived(
                level, request.request_id, prompt, most, progress.arrived
            )

    def finished(self, request: Request, now: float) -> None:
        """A request has ended; a second call for the same one does nothing."""
        progress = self._progress.ended(request.request_id)
        if progress is None:
            return
        outcome = OUTCOME.get(request.status, "stop")
        seconds, per_token = now - progress.arrived, progress.seconds_per_token
        self._recorder.finished(progress.level, outcome, seconds, per_token)
        if self._log is not None:
            level, serial = progress.level, progress.serial
            self._log.request_finished(level, serial, progress.tokens, outcome, now)

    def preempted(self, request: Request, level: int, computed: int, spilled: int) -> None:
        """A request lost its KV blocks: ``spilled`` of its ``computed`` tokens stay."""
        self._recorder.preemption(level)
        progress = self._progress.of(request.request_id)
        if self._log is not None and progress is not None:
            now = time.monotonic()
            self._log.request_preempted(level, progress.serial, computed, spilled, now)

    def came_back(self, request_id: str, level: int, saved: int, again: int) -> None:
        """A preempted request kept ``saved`` tokens and computes others ``again``."""
        self._recorder.came_back(level, saved, again)
        progress = self._progress.of(request_id)
        if self._log is not None and progress is not None:
            self._log.request_resumed(level, progress.serial, saved, again, time.monotonic())

    def abandoned(self, level: int, tokens: int) -> None:
        """A step was given up in which a request of class ``level`` had ``tokens``."""
        self._recorder.abandoned(level, tokens)

    # -- steps ---------------------------------------------------------------------------------

    def scheduled(self, step: Step, now: float) -> None:
        """``step`` starts, and with it the first work of some of its requests."""
        if not step.request_ids:
            return
        log, below = self._log, self._flight.below
        if log is not None:
            log.step_started(step, self._flight.depth, now)
        for request_id in step.request_ids:
            progress = self._progress.of(request_id)
            if progress is not None and progress.started is None:
                progress.started = now
                response = now - progress.arrived
                self._recorder.response(progress.level, response)
                if log is not None:
                    log.request_started(progress.level, progress.serial, step, response, now)
        if below is not None:
            self._recorder.nested_step(below.level, step.level)

    def completed(self, step: Step, requests: Iterable[Request], now: float) -> None:
        """``step``, which is no more in flight, is done; its ``requests`` may have new tokens."""
        if self._log is not None and step.request_ids:
            self._log.step_finished(step, len(self._flight), now)
        for request in requests:
            progress = self._progress.of(request.request_id)
            if progress is None:
                continue
            new = request.num_output_tokens - progress.tokens
            if new > 0:
                if progress.first_token is None:
                    self._first_token(progress, request.num_prompt_tokens, now)
                progress.advance(request.num_output_tokens, now)
                self._recorder.generated_tokens(progress.level, new)
            if request.is_finished():
                self.finished(request, now)

    def _first_token(self, progress: Progress, prompt_tokens: int, now: float) -> None:
        self._recorder.first_token(progress.level, now - progress.arrived)
        self._recorder.prompt_tokens(progress.level, prompt_tokens)
        if self._log is not None:
            self._log.request_first_token(progress.level, progress.serial, now)

    def copied(self, step: Step, report: CopyReport, failed: int) -> None:
        """``step`` copied KV; ``failed`` blocks could not be copied."""
        if report.restored:
            self._recorder.restored_in(step.level, report.restore_seconds)
        if failed:
            self._recorder.spill_errors(step.level, failed)
        if self._log is not None and (report.offloaded or report.restored):
            self._log.step_copied(step, len(self._flight), report, failed, time.monotonic())

    def suspended(self, step: Step, place: Place, by: int | None, now: float) -> None:
        """``step`` stopped for class ``by``, or None: its time slice ended."""
        self._recorder.suspension(step.level, by)
        if self._log is not None:
            self._log.step_suspended(step, self._flight.depth, place, by, now)

    def resumed(self, step: Step, seconds: float, now: float) -> None:
        """``step`` goes on after ``seconds``."""
        self._recorder.suspended_for(step.level, seconds)
        if self._log is not None:
            self._log.step_resumed(step, self._flight.depth, now)

    # -- who waits -----------------------------------------------------------------------------

    def queues(self, records: Sequence[ClassRecord], now: float) -> None:
        """How many requests of each class are in each state."""
        for record in records:
            level = record.level
            self._recorder.running(level, record.running)
            self._recorder.suspended(level, record.suspended)
            self._recorder.waiting(level, record.waiting)
            if self._log is not None:
                self._log.queue(level, record.waiting, record.running, record.suspended, now)

    def kv(self, parked: Sequence[tuple[int, int]], spilled: Sequence[int], now: float) -> None:
        """What each class holds: ``parked`` requests and their blocks, bytes on the host."""
        for level, ((requests, blocks), size) in enumerate(zip(parked, spilled, strict=True)):
            self._recorder.parked(level, requests, blocks)
            self._recorder.spilled(level, size)
            if self._log is not None:
                self._log.kv(level, requests, blocks, size, now)

    def close(self) -> None:
        """Let go of what others read."""
        self._recorder.close()
        if self._log is not None:
            self._log.close()
