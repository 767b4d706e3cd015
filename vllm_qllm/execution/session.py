# SPDX-License-Identifier: Apache-2.0
"""A worker's stack of steps, and the yield point that may suspend the one that runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from vllm.v1.core.sched.output import SchedulerOutput

from vllm_qllm.execution.agreement import Agreement
from vllm_qllm.execution.flag import Flag
from vllm_qllm.execution.no_result import no_result
from vllm_qllm.execution.protocol import GIVE_UP, Place, RunCommand, StepAbandoned, Suspended
from vllm_qllm.execution.runner import Runner

Suspend = Callable[[Suspended], int]


class Lead(Protocol):
    """How far the host may be ahead of the device in one step."""

    def mark(self, is_due: Callable[[], bool]) -> None:
        """Note a yield point; return when the device is near enough, or the step is due."""
        ...


class Session:
    """Runs steps on one model runner, one on top of another.

    The forward pass of a suspended step stays on the Python stack of this thread, inside
    :meth:`yield_point`, with all its activations; whatever runs meanwhile runs on top of it.

    Args:
        flag: the arrival flag.
        agreement: with the other workers that run the same steps.
        runner: the model runner.
        suspend: carries ``Suspended`` to the engine, serves what the engine asks for, and
            returns the next deadline, or GIVE_UP, once the engine resumes the step.
        new_lead: makes what bounds the host's lead in one step; None where the host computes
            itself.
    """

    def __init__(
        self,
        flag: Flag,
        agreement: Agreement,
        runner: Runner,
        suspend: Suspend,
        new_lead: Callable[[], Lead] | None = None,
    ) -> None:
        self._flag = flag
        self._agreement = agreement
        self._runner = runner
        self._suspend = suspend
        self._new_lead = new_lead
        # The step whose forward pass is running, when it may be suspended.
        self._command: RunCommand | None = None
        self._passed = 0
        self._lead: Lead | None = None
        self._suspended_lanes: set[int] = set()

    def run(
        self,
        output: SchedulerOutput,
        command: RunCommand,
        execute: Callable[[SchedulerOutput], Any],
    ) -> Any:
        """Run one step in its lane and return what ``execute`` returns.

        Of a step that is given up, that is a result without a token.
        """
        assert command.lane not in self._suspended_lanes, "a nested step needs a lane of its own"
        outer = self._command, self._passed, self._lead
        self._runner.begin(command.lane, output)
        self._command, self._passed = (command if command.suspendable else None), 0
        if self._command and self._new_lead:
            self._lead = self._new_lead()
        try:
            return execute(output)
        except StepAbandoned:
            self._runner.forget(output)
            return no_result(output)
        finally:
            self._command, self._passed, self._lead = outer

    @property
    def suspendable(self) -> bool:
        """Whether the step that runs may be suspended."""
        return self._command is not None

    def is_due(self) -> bool:
        """Whether the step that runs is to suspend: the flag names it, or its time is over."""
        command = self._command
        return command is not None and (
            self._flag.names(command.number) or time.monotonic_ns() >= command.deadline
        )

    def yield_point(self, place: Place) -> None:
        """Suspend the running step if it is due.

        Args:
            place: where in the model this is.
        """
        if self._command is None:
            return
        self._passed += 1
        if self._lead is not None:
            self._lead.mark(self.is_due)
        if self._agreement.decide(self.is_due):
            self.suspend(place)

    def suspend(self, place: Place) -> None:
        """Suspend the running step, which is suspendable; returns once it is resumed.

        Raises:
            StepAbandoned: it is given up.
        """
        command, passed = self._command, self._passed
        assert command is not None
        # Nothing that runs meanwhile is this step: yield points of others are not its own.
        self._command = None
        self._suspended_lanes.add(command.lane)
        left = self._runner.leave()
        deadline = self._suspend(Suspended(command.number, passed, place))
        self._suspended_lanes.remove(command.lane)
        self._runner.enter(command.lane, left)
        if deadline == GIVE_UP:
            raise StepAbandoned
        self._command, self._passed = command._replace(deadline=deadline), passed
