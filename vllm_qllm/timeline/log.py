# SPDX-License-Identifier: Apache-2.0
"""What the engine's thread calls; every call stores one event."""

from __future__ import annotations

import itertools
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from vllm_qllm.config import PriorityConfig
from vllm_qllm.execution.protocol import WHERE, Place
from vllm_qllm.metrics.names import OUTCOMES
from vllm_qllm.timeline import events
from vllm_qllm.timeline.ring import Ring

if TYPE_CHECKING:
    from vllm_qllm.kv.copies import CopyReport

logger = logging.getLogger("vllm.qllm")

_WHERE = {where: index for index, where in enumerate(WHERE)}
_OUTCOMES = {outcome: index for index, outcome in enumerate(OUTCOMES)}


class Step(Protocol):
    """What is recorded of a step; see :class:`vllm_qllm.engine.step.Step`."""

    number: int
    level: int
    lane: int
    request_ids: dict[str, int]
    decode_rows: int | None
    yield_point: int


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)


def open_log(config: PriorityConfig, path: str | Path | None) -> TimelineLog | None:
    """The log of an engine; None when it is off or, after a warning, cannot be written.

    A full disk may cost the timeline, but not the service.
    """
    if not config.timeline or path is None:
        return None
    classes = tuple(c.name for c in config.classes)
    about = {"classes": classes, "pid": os.getpid()}
    try:
        return TimelineLog(Ring(path, config.timeline, about), len(classes))
    except OSError as error:
        logger.warning("The timeline is left out: %s.", error)
        return None


class TimelineLog:
    """Events of one engine. Times are ``time.monotonic()`` seconds.

    Not thread-safe: one thread calls it.

    Args:
        ring: where to write them.
        classes: number of classes.
    """

    def __init__(self, ring: Ring, classes: int) -> None:
        self._ring = ring
        self._states: dict[tuple[str, int], tuple[int, ...]] = {
            (kind.name, level): (0,) * len(kind.values)
            for kind in (events.QUEUE, events.KV)
            for level in range(classes)
        }
        self._serials = itertools.count(1)

    def step_started(self, step: Step, depth: int, now: float) -> None:
        """``step`` was scheduled on top of ``depth`` suspended ones, and runs from now on."""
        tokens = sum(step.request_ids.values())
        values = (depth, step.lane, tokens, len(step.request_ids), step.decode_rows or 0)
        self._ring.append(_ns(now), events.STEP_STARTED, step.level, step.number, values)

    def step_suspended(
        self, step: Step, depth: int, place: Place, by: int | None, now: float
    ) -> None:
        """``step`` stopped at ``place`` for class ``by``, or None: its time slice ended."""
        taker = events.NO_CLASS if by is None else by
        values = (depth, step.yield_point, place.layer, _WHERE[place.where], taker)
        self._ring.append(_ns(now), events.STEP_SUSPENDED, step.level, step.number, values)

    def step_resumed(self, step: Step, depth: int, now: float) -> None:
        """``step`` goes on."""
        self._ring.append(_ns(now), events.STEP_RESUMED, step.level, step.number, (depth,))

    def step_copied(
        self, step: Step, depth: int, report: CopyReport, failed: int, now: float
    ) -> None:
        """``step`` copied KV blocks to the host and back, of which ``failed`` did not succeed."""
        seconds = report.offload_seconds + report.restore_seconds
        values = (depth, report.offloaded, report.restored, failed, _ns(seconds))
        self._ring.append(_ns(now), events.STEP_COPIED, step.level, step.number, values)

    def step_finished(self, step: Step, depth: int, now: float) -> None:
        """The results of ``step`` have been applied."""
        self._ring.append(_ns(now), events.STEP_FINISHED, step.level, step.number, (depth,))

    def request_arrived(
        self, level: int, request_id: str, prompt_tokens: int, max_tokens: int, arrived: float
    ) -> int:
        """A request arrived at ``arrived``; returns the number that names it from here on."""
        serial = next(self._serials)
        label = request_id.encode(errors="replace")
        values = (prompt_tokens, max_tokens)
        self._ring.append(_ns(arrived), events.REQUEST_ARRIVED, level, serial, values, label)
        return serial

    def request_started(
        self, level: int, serial: int, step: Step, response: float, now: float
    ) -> None:
        """A request's first work is in ``step``, ``response`` seconds after its arrival."""
        values = (step.number, _ns(response))
        self._ring.append(_ns(now), events.REQUEST_STARTED, level, serial, values)

    def request_first_token(self, level: int, serial: int, now: float) -> None:
        """A request got its first token."""
        self._ring.append(_ns(now), events.REQUEST_FIRST_TOKEN, level, serial)

    def request_preempted(
        self, level: int, serial: int, computed: int, spilled: int, now: float
    ) -> None:
        """A request lost its KV blocks and waits again.

        Of the tokens that it had ``computed`` the first ``spilled`` are on the host.
        """
        values = (computed, spilled)
        self._ring.append(_ns(now), events.REQUEST_PREEMPTED, level, serial, values)

    def request_resumed(
        self, level: int, serial: int, saved: int, recomputed: int, now: float
    ) -> None:
        """The step in which a preempted request came back is done.

        Of the tokens that it had computed ``saved`` were restored or cached; it
        computes ``recomputed`` again.
        """
        self._ring.append(_ns(now), events.REQUEST_RESUMED, level, serial, (saved, recomputed))

    def request_finished(
        self, level: int, serial: int, tokens: int, outcome: str, now: float
    ) -> None:
        """A request ended with ``tokens`` of output."""
        values = (tokens, _OUTCOMES[outcome])
        self._ring.append(_ns(now), events.REQUEST_FINISHED, level, serial, values)

    def queue(self, level: int, waiting: int, running: int, suspended: int, now: float) -> None:
        """So many requests of a class are in each state; recorded when that has changed."""
        self._state(events.QUEUE, level, (waiting, running, suspended), now)

    def kv(self, level: int, parked: int, blocks: int, spilled: int, now: float) -> None:
        """``parked`` requests of a class hold ``blocks``, and the host ``spilled`` bytes of it.

        Recorded when that has changed.
        """
        self._state(events.KV, level, (parked, blocks, spilled), now)

    def _state(self, kind: events.Kind, level: int, state: tuple[int, ...], now: float) -> None:
        key = kind.name, level
        if self._states[key] != state:
            self._states[key] = state
            self._ring.append(_ns(now), kind, level, 0, state)

    def close(self) -> None:
        """Let go of the file; nothing can be recorded afterwards."""
        self._ring.close()
