# SPDX-License-Identifier: Apache-2.0
"""The flag inside a real forward pass: one arrival is one suspension, and a slice is a slice."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.engine.scripted import BE, LS, EngineFor, ScriptedEngine
from tests.engine.test_token_equality import prompt

AGED_AT_ONCE = [
    {"name": "ls", "max_priority": 0},
    {"name": "be", "max_wait_ms": 20, "slice_ms": 60000},
]


def inside_the_forward(engine: ScriptedEngine, action: Callable[[int], None]) -> None:
    """Call ``action`` with the yield point's number before each yield point looks at the flag."""
    session = engine.core.model_executor.driver_worker.worker._priority_session
    decide = session._agreement.decide

    def decide_after_action(wanted: Callable[[], bool]) -> bool:
        action(session._passed)
        return bool(decide(wanted))

    session._agreement.decide = decide_after_action


def suspensions(engine: ScriptedEngine, urgent_tokens: int) -> list[int]:
    """Yield points at which the best-effort step stops; the first stop adds an urgent request."""
    seen: list[int] = []

    def on_suspended() -> None:
        step = engine.core.scheduler.flight.suspended[-1]
        if not seen or seen[-1] != step.yield_point:
            seen.append(step.yield_point)
        if len(engine.results) == 1:
            engine.add(prompt(2, 20), urgent_tokens, LS)

    engine.on_suspended = on_suspended
    engine.add(prompt(1, 200), 1, BE)
    engine.step()
    engine.discard()
    return seen


def test_one_arrival_suspends_a_step_once(engine_for: EngineFor) -> None:
    engine = engine_for(priority_config={"policy": "strict"})
    controller = engine.core.priority_controller

    def arrive(yield_point: int) -> None:
        if yield_point == 2 and len(engine.results) == 1:
            controller._arrived(LS)

    inside_the_forward(engine, arrive)
    assert suspensions(engine, urgent_tokens=3) == [2]


@pytest.mark.parametrize("again", [False, True], ids=["one arrival", "an arrival a yield point"])
def test_arrivals_do_not_cut_a_slice_short(engine_for: EngineFor, again: bool) -> None:
    engine = engine_for(priority_config={"policy": "strict", "classes": AGED_AT_ONCE})
    controller = engine.core.priority_controller

    def arrive(yield_point: int) -> None:
        if engine.core.scheduler.flight.last.level and (again or yield_point == 1):
            controller._arrived(LS)

    inside_the_forward(engine, arrive)
    # The urgent request decodes for far longer than max_wait_ms, so the slice comes while it has
    # work, and lasts until the step is done.
    assert suspensions(engine, urgent_tokens=400) == [1]
