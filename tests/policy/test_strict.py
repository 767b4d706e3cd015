# SPDX-License-Identifier: Apache-2.0
"""What the built-in policies answer, case by case and in general."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_qllm.config import PriorityClass, PriorityConfig
from vllm_qllm.policy import (
    ClassView,
    EngineView,
    Plan,
    Policy,
    Resume,
    Run,
    StepPolicy,
    StrictPolicy,
    SuspendedView,
)

CONFIG = PriorityConfig(
    classes=(
        PriorityClass("chat", max_priority=0),
        PriorityClass("agent", max_priority=10, max_wait_ms=1000, slice_ms=50),
        PriorityClass("batch", max_wait_ms=2000, slice_ms=100),
    )
)
NONE = (0, 0, 0)
WAITS, PREFILLS, DECODES = (1, 0, 0), (0, 1, 0), (0, 0, 1)


def view(
    *work: tuple[int, int, int],
    owed: tuple[float, ...] = (0, 0, 0),
    suspended: tuple[tuple[int, float], ...] = (),
    ride: int = 4,
) -> EngineView:
    classes = tuple(
        ClassView(level, *counts, owed=owed[level]) for level, counts in enumerate(work)
    )
    steps = tuple(SuspendedView(*one, ran=0.2, yield_point=3) for one in suspended)
    return EngineView(classes, steps, ride)


ALONE = Run(0, 4, suspendable=False)
SLICE = {1: Resume(0.05, protected=True), 2: Resume(0.1, protected=True)}
AGED = Run(1, budget=0.05, protected=True)

CASES: list[tuple[str, EngineView, Plan]] = [
    ("the most urgent class leads", view(WAITS, NONE, NONE), ALONE),
    ("a prefill takes decodes along", view(WAITS, DECODES, DECODES), ALONE),
    ("so does its next chunk", view(PREFILLS, DECODES, NONE), ALONE),
    ("a prefill beside decodes too", view((0, 1, 5), DECODES, NONE), ALONE),
    ("decodes take others along", view(DECODES, NONE, DECODES), ALONE),
    ("as many as may", view(DECODES, NONE, DECODES, ride=7), Run(0, 7, suspendable=False)),
    ("none when none may", view(WAITS, NONE, DECODES, ride=0), Run(0, suspendable=False)),
    ("the next class leads", view(NONE, WAITS, DECODES), Run(1, 4)),
    ("its decodes take others along", view(NONE, DECODES, DECODES), Run(1, 4)),
    ("the last class leads", view(NONE, NONE, PREFILLS, ride=0), Run(2)),
    ("urgent work nests", view(WAITS, NONE, WAITS, suspended=((2, 0.1),)), ALONE),
    ("the middle class nests", view(NONE, WAITS, WAITS, suspended=((2, 0.1),)), Run(1, 4)),
    ("equal work does not nest", view(NONE, NONE, WAITS, suspended=((2, 0.1),)), Resume()),
    ("nor does less urgent work", view(NONE, WAITS, WAITS, suspended=((1, 0.1),)), Resume()),
    ("nothing to nest", view(NONE, NONE, NONE, suspended=((1, 0.0),)), Resume()),
    ("owed nothing yet", view(WAITS, NONE, NONE, suspended=((2, 1.99),)), ALONE),
    (
        "a suspended step has what its class is owed",
        view(WAITS, NONE, NONE, owed=(0, 0, 0.1), suspended=((2, 2.0),)),
        SLICE[2],
    ),
    (
        "or what is left of that",
        view(WAITS, NONE, NONE, owed=(0, 0.03, 0), suspended=((1, 0.0),)),
        Resume(0.03, protected=True),
    ),
    ("owed between steps", view(DECODES, WAITS, NONE, owed=(0, 0.05, 0)), AGED),
    (
        "the more urgent of two that are owed goes first",
        view(DECODES, WAITS, WAITS, owed=(0, 0.05, 0.1)),
        AGED,
    ),
    (
        "who is owed more slices before that",
        view(DECODES, WAITS, WAITS, owed=(0, 0.05, 0.11)),
        Run(2, budget=0.11, protected=True),
    ),
    (
        "what is owed nests when it may",
        view(DECODES, DECODES, WAITS, owed=(0, 0.05, 0), suspended=((2, 0.1),)),
        AGED,
    ),
    (
        "but the step below it goes first if that is owed, too",
        view(DECODES, DECODES, WAITS, owed=(0, 0.05, 0.1), suspended=((2, 0.1),)),
        SLICE[2],
    ),
    ("only the innermost nests", view(WAITS, WAITS, NONE, suspended=((2, 0.1), (1, 0.1))), ALONE),
    (
        "the innermost is resumed, whatever is below it",
        view(NONE, WAITS, WAITS, suspended=((2, 0.1), (1, 0.1))),
        Resume(),
    ),
    (
        "an outer step that is owed gives the inner one every second slice",
        view(WAITS, NONE, NONE, owed=(0, 0, 0.1), suspended=((2, 2.0), (1, 0.05))),
        SLICE[1],
    ),
    (
        "a longer one when more is owed, up to half of the time",
        view(WAITS, NONE, NONE, owed=(0, 0, 0.9), suspended=((2, 3.0), (1, 0.2))),
        Resume(0.2, protected=True),
    ),
    (
        "so does work that has not begun",
        view(WAITS, NONE, WAITS, owed=(0, 0, 0.1), suspended=((1, 0.05),)),
        SLICE[1],
    ),
    (
        "every second, not all",
        view(WAITS, NONE, NONE, owed=(0, 0, 0.1), suspended=((2, 2.0), (1, 0.04))),
        ALONE,
    ),
    (
        "unless it is owed that itself",
        view(WAITS, NONE, NONE, owed=(0, 0.05, 0.1), suspended=((2, 2.0), (1, 0.04))),
        SLICE[1],
    ),
    ("not before it is owed", view(WAITS, NONE, NONE, suspended=((2, 1.9), (1, 0.9))), ALONE),
]  # fmt: skip


@pytest.mark.parametrize(("seen", "answer"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_strict(seen: EngineView, answer: Plan) -> None:
    assert StrictPolicy(CONFIG).plan(seen) == answer


@pytest.mark.parametrize(
    ("seen", "answer"),
    [c[1:] for c in CASES if not c[1].suspended],
    ids=[c[0] for c in CASES if not c[1].suspended],
)
def test_step_decides_the_same_but_suspends_nothing(seen: EngineView, answer: Plan) -> None:
    plan = StepPolicy(CONFIG).plan(seen)
    assert isinstance(plan, Run) and isinstance(answer, Run)
    assert (plan.level, plan.riders) == (answer.level, answer.riders)
    assert not plan.suspendable


counts = st.tuples(*[st.integers(0, 3)] * 3)
seconds = st.floats(0, 10)
owed = st.just(0.0) | st.floats(0.001, 3)
views = st.builds(
    view,
    counts,
    counts,
    counts,
    owed=st.tuples(owed, owed, owed),
    suspended=st.sampled_from([(), (1,), (2,), (2, 1)]).flatmap(
        lambda levels: st.tuples(*(st.tuples(st.just(level), seconds) for level in levels))
    ),
    ride=st.integers(0, 8),
)


@given(views, st.sampled_from([StrictPolicy, StepPolicy]))
def test_any_answer_is_one_that_can_be_carried_out(seen: EngineView, kind: type[Policy]) -> None:
    busy = {c.level for c in seen.classes if c.has_work}
    if not busy and not seen.suspended:
        return  # nobody asks
    plan = kind(CONFIG).plan(seen)
    assert plan.budget is None or plan.budget > 0
    # What is protected ends by its budget, and only what is owed time is protected.
    assert plan.protected == (plan.budget is not None)
    if isinstance(plan, Resume):
        assert seen.suspended
        return
    assert plan.level in busy
    if seen.suspended:
        assert plan.level < seen.suspended[-1].level
    assert 0 <= plan.riders <= seen.ride_limit
    assert plan.level > 0 or not plan.suspendable
    # Nobody more urgent is passed over but for work that is owed time, and for no longer.
    if plan.level > min(busy):
        assert plan.budget == seen.classes[plan.level].owed and plan.protected
        assert not plan.riders
