# SPDX-License-Identifier: Apache-2.0
"""When the real controller raises the arrival flag, and how long it lets a step run."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from vllm.v1.engine import EngineCoreRequestType

import vllm_qllm.engine.controller
from tests.engine.bare_scheduler import BE, LS, BareScheduler, Clock, Make
from vllm_qllm.engine.controller import GRAMMAR_POLL_S, Controller
from vllm_qllm.execution.protocol import GIVE_UP, Place, Suspended
from vllm_qllm.policy import Run

PROTECTED = Run(1, budget=0.05, protected=True)


class Driver:
    """An engine of which only the scheduler and the controller are real.

    Attributes:
        took: seconds of each nested step.
    """

    def __init__(self, bare: BareScheduler) -> None:
        self.bare = bare
        self.took = 0.0
        engine: Any = SimpleNamespace(
            scheduler=bare.scheduler,
            model_executor=SimpleNamespace(priority_attach=lambda *arguments: 0),
            step=self.step,
            post_step=lambda executed: None,
        )
        self.controller = Controller(engine)

    def step(self) -> tuple[dict[int, Any], bool]:
        self.bare.begin()
        self.bare.end(self.took)
        return {}, True

    def arrive(self, priority: int) -> None:
        """The IO thread puts a request into the input queue; the engine does not take it yet."""
        request = SimpleNamespace(priority=priority)
        self.controller._arrivals.queue.put((EngineCoreRequestType.ADD, (request, 0)))

    def start(self, plan: Run) -> None:
        self.bare.scheduler.use_plan(plan)
        self.bare.begin()
        self.controller.next_command()

    def suspend(self, ran: float = 0.05) -> float | None:
        """The running step stops; returns for how long it may then run on."""
        self.bare.clock.now += ran
        step = self.bare.step_in_flight
        return self.controller.on_suspended(Suspended(step.number, 1, Place(0, "before attention")))

    @property
    def raised(self) -> bool:
        return self.controller._flag.names(self.bare.step_in_flight.number)


@pytest.fixture
def driver(make: Make, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    monkeypatch.setattr(vllm_qllm.engine.controller, "time", clock)
    monkeypatch.setattr(vllm_qllm.engine.controller, "deadline", lambda budget: budget)
    made = Driver(make(ride_slowdown=1))
    made.bare.add("b1", BE, 64)
    yield made
    made.controller.close()


def test_an_urgent_arrival_raises_the_flag(driver: Driver) -> None:
    driver.start(Run(1))
    driver.arrive(BE)
    assert not driver.raised
    driver.arrive(LS)
    assert driver.raised


def test_one_that_came_before_the_step_started_does_too(driver: Driver) -> None:
    driver.arrive(LS)
    driver.start(Run(1))
    assert driver.raised


@pytest.mark.parametrize("early", [False, True])
def test_no_arrival_cuts_a_protected_slice_short(driver: Driver, early: bool) -> None:
    if early:
        driver.arrive(LS)
    driver.start(PROTECTED)
    if not early:
        driver.arrive(LS)
    assert not driver.raised
    # Its budget has passed. What is pending suspends it again, now that nothing protects it.
    assert driver.suspend() is None
    assert not driver.bare.step_in_flight.protected
    assert driver.raised


def test_a_protected_slice_of_a_suspended_step(driver: Driver) -> None:
    bare = driver.bare
    driver.start(Run(1))
    bare.add("l1", LS, 16, out=2)
    driver.took = 2.1
    # Its prefill takes so long that the suspended step is overdue.
    assert driver.suspend() == pytest.approx(0.1 * 2.1 / 2)
    assert bare.requests["l1"].num_output_tokens == 1
    driver.arrive(LS)
    assert bare.step_in_flight.protected and not driver.raised
    driver.took = 0.0
    # What is left of it is protected as well.
    assert driver.suspend(ran=0.1) == pytest.approx(0.005)
    assert bare.step_in_flight.protected and not driver.raised
    assert driver.suspend(ran=0.01) is None
    assert bare.requests["l1"].num_output_tokens == 2
    assert driver.raised


def test_a_step_is_given_up_when_that_is_wanted(driver: Driver) -> None:
    bare = driver.bare
    driver.start(Run(1))
    bare.add("l1", LS, 16 * bare.blocks, out=1)
    assert driver.suspend() == GIVE_UP
    assert bare.step_in_flight.abandoned and bare.step_in_flight.suspended_at is None
    bare.end()
    assert bare.begin() == {"l1": 64}
    assert bare.preemptions() == {"b1": 1}


def test_a_step_looks_again_for_blocked_requests_unless_it_is_protected(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = driver.bare
    driver.start(Run(1))
    assert driver.suspend() is None
    # As if one urgent request, which is not counted as work, waited for its grammar.
    monkeypatch.setattr(type(bare.scheduler.census), "compiling", lambda census, level: True)
    bare.add("l1", LS, 16, out=9)
    bare.add("l2", LS, 16, out=1)
    driver.took = 2.1
    assert driver.suspend() == pytest.approx(0.1 * 2.1 / 2)
    assert bare.step_in_flight.protected
    bare.abort("l1")
    driver.took = 0.0
    assert driver.suspend(ran=0.11) == GRAMMAR_POLL_S
    assert not bare.step_in_flight.protected
