# SPDX-License-Identifier: Apache-2.0
"""Steps on a runner that is none: what a session asks of it, and in which order."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from vllm.v1.core.sched.output import SchedulerOutput

from vllm_qllm.execution.flag import Flag
from vllm_qllm.execution.protocol import GIVE_UP, NEVER, Place, RunCommand, Suspended
from vllm_qllm.execution.session import Session

PLACE = Place(3, "experts")


class Runner:
    """Writes down what it is asked; the step in a lane has a mark that a nested one replaces."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.mark = ""

    def begin(self, lane: int, output: Any) -> None:
        self.said.append(f"begin {lane}")
        self.mark = f"of lane {lane}"

    def leave(self) -> str:
        self.said.append("leave")
        return self.mark

    def enter(self, lane: int, left: str) -> None:
        self.said.append(f"enter {lane}")
        self.mark = left

    def forget(self, output: Any) -> None:
        self.said.append("forget")


class Machine:
    """A session, and what the engine does while a step of it is suspended."""

    def __init__(self, flag: Flag) -> None:
        self.flag, self.runner = flag, Runner()
        self.stops: list[Suspended] = []
        self.answer = NEVER
        self.nested: list[RunCommand] = []
        self.session = Session(flag, flag.agreement(0, 1), self.runner, self.suspended)

    def suspended(self, stop: Suspended) -> int:
        self.stops.append(stop)
        self.flag.raise_for(0)
        for command in self.nested:
            self.run(command, 1)
        return self.answer

    def run(self, command: RunCommand, yield_points: int, raise_at: int = -1) -> Any:
        output: Any = SimpleNamespace(num_scheduled_tokens={"a": 1})

        def execute(output: SchedulerOutput) -> str:
            for number in range(yield_points):
                if number == raise_at:
                    self.flag.raise_for(command.number)
                self.session.yield_point(PLACE)
            return f"done {command.number}"

        return self.session.run(output, command, execute)


@pytest.fixture
def machine() -> Iterator[Machine]:
    flag = Flag()
    yield Machine(flag)
    flag.close()


def step(number: int, lane: int, suspendable: bool = True, deadline: int = NEVER) -> RunCommand:
    return RunCommand(number, lane, suspendable, deadline)


def test_a_step_that_nobody_stops(machine: Machine) -> None:
    assert machine.run(step(1, 1), 5) == "done 1"
    assert machine.runner.said == ["begin 1"] and machine.stops == []


def test_a_nested_step_runs_on_top_of_one_that_stopped(machine: Machine) -> None:
    machine.nested = [step(2, 0, suspendable=False), step(3, 0, suspendable=False)]
    assert machine.run(step(1, 1), 5, raise_at=2) == "done 1"
    assert machine.stops == [Suspended(1, 3, PLACE)], "at its third yield point"
    assert machine.runner.said == ["begin 1", "leave", "begin 0", "begin 0", "enter 1"]
    assert machine.runner.mark == "of lane 1"


def test_a_step_whose_time_is_over_stops_at_the_next_yield_point(machine: Machine) -> None:
    assert machine.run(step(1, 1, deadline=time.monotonic_ns()), 3) == "done 1"
    assert [stop.yield_point for stop in machine.stops] == [1], "then it has no deadline any more"


def test_a_resumed_step_keeps_its_own_deadline(machine: Machine) -> None:
    machine.answer = time.monotonic_ns()
    machine.run(step(1, 1), 4, raise_at=0)
    assert [stop.yield_point for stop in machine.stops] == [1, 2, 3, 4]


def test_what_cannot_be_suspended_is_not(machine: Machine) -> None:
    assert machine.run(step(1, 0, suspendable=False), 4, raise_at=0) == "done 1"
    assert not machine.session.suspendable and machine.stops == []


def test_a_flag_for_another_step_stops_nobody(machine: Machine) -> None:
    machine.flag.raise_for(7)
    machine.run(step(1, 1), 4)
    assert machine.stops == []


def test_a_step_that_is_given_up_has_no_tokens(machine: Machine) -> None:
    machine.answer = GIVE_UP
    result = machine.run(step(1, 1), 5, raise_at=1)
    assert result.req_ids == ["a"] and not result.sampled_token_ids
    assert machine.runner.said == ["begin 1", "leave", "enter 1", "forget"]
    assert not machine.session.suspendable


def test_two_steps_of_one_lane_would_overwrite_each_other(machine: Machine) -> None:
    machine.nested = [step(2, 1)]
    with pytest.raises(AssertionError, match="a lane of its own"):
        machine.run(step(1, 1), 2, raise_at=0)
