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
    starved: tuple[float, ...] = (0, 0, 0),
    suspended: tuple[int, float] | None = None,
    ride: int = 4,
) -> EngineView:
    classes = tuple(
        ClassView(rank, *counts, starved=starved[rank]) for rank, counts in enumerate(work)
    )
    inner = suspended and SuspendedView(suspended[0], suspended[1], ran=0.2, checkpoint=3)
    return EngineView(classes, inner or None, ride)


CASES: list[tuple[str, EngineView, Plan]] = [
    ("a prefill runs alone", view(WAITS, DECODES, DECODES), Run(0, suspendable=False)),
    ("so does its next chunk", view(PREFILLS, DECODES, NONE), Run(0, suspendable=False)),
    ("a prefill beside decodes too", view((0, 1, 5), DECODES, NONE), Run(0, suspendable=False)),
    ("decodes take others along", view(DECODES, NONE, DECODES), Run(0, 4, suspendable=False)),
    ("the next class leads", view(NONE, WAITS, DECODES), Run(1)),
    ("its decodes take others along", view(NONE, DECODES, DECODES), Run(1, 4)),
    ("the last class leads", view(NONE, NONE, PREFILLS), Run(2)),
    ("urgent work nests", view(WAITS, NONE, WAITS, suspended=(2, 0.1)), Run(0, suspendable=False)),
    ("the middle class nests", view(NONE, WAITS, WAITS, suspended=(2, 0.1)), Run(1)),
    ("equal work does not nest", view(NONE, NONE, WAITS, suspended=(2, 0.1)), Resume()),
    ("nor does less urgent work", view(NONE, WAITS, WAITS, suspended=(1, 0.1)), Resume()),
    ("nothing to nest", view(NONE, NONE, NONE, suspended=(1, 0.0)), Resume()),
    ("not yet", view(WAITS, NONE, NONE, suspended=(2, 1.99)), Run(0, suspendable=False)),
    ("held back too long", view(WAITS, NONE, NONE, suspended=(2, 2.0)), Resume(0.1)),
    ("each class has its own bound", view(WAITS, NONE, NONE, suspended=(1, 1.0)), Resume(0.05)),
    ("starved between steps", view(DECODES, WAITS, NONE, starved=(0, 1.0, 0)), Run(1, budget=0.05)),
    (
        "the more urgent of two starved classes goes first",
        view(DECODES, WAITS, WAITS, starved=(0, 1.0, 2.0)),
        Run(1, budget=0.05),
    ),
    (
        "a starved class nests when it may",
        view(DECODES, DECODES, WAITS, starved=(0, 1.5, 9), suspended=(2, 0.1)),
        Run(1, budget=0.05),
    ),
    (
        "starved but as urgent as the suspended step: it must wait for it",
        view(DECODES, WAITS, NONE, starved=(0, 9, 0), suspended=(1, 0.1)),
        Run(0, 4, suspendable=False),
    ),
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
    assert (plan.rank, plan.riders, plan.fill) == (answer.rank, answer.riders, answer.fill)
    assert not plan.suspendable


counts = st.tuples(*[st.integers(0, 3)] * 3)
seconds = st.floats(0, 10)
views = st.builds(
    view,
    counts,
    counts,
    counts,
    starved=st.tuples(seconds, seconds, seconds),
    suspended=st.none() | st.tuples(st.integers(1, 2), seconds),
    ride=st.integers(0, 8),
)


@given(views, st.sampled_from([StrictPolicy, StepPolicy]))
def test_any_answer_is_one_that_can_be_carried_out(seen: EngineView, kind: type[Policy]) -> None:
    busy = {c.rank for c in seen.classes if c.has_work}
    if not busy and seen.suspended is None:
        return  # nobody asks
    plan = kind(CONFIG).plan(seen)
    if isinstance(plan, Resume):
        assert seen.suspended is not None
        assert plan.budget is None or plan.budget > 0
        return
    assert plan.rank in busy
    if seen.suspended is not None:
        assert plan.rank < seen.suspended.rank
    assert 0 <= plan.riders <= seen.ride_limit
    leader = seen.classes[plan.rank]
    if leader.waiting or leader.prefilling:
        assert plan.riders == 0
    assert plan.budget is None or plan.budget > 0
    assert not plan.fill
    assert plan.rank > 0 or not plan.suspendable
    # Nobody more urgent is passed over but for work that has reached its bound.
    if plan.rank > min(busy):
        bound = CONFIG.classes[plan.rank].max_wait_ms / 1000
        assert leader.starved >= bound and plan.budget is not None
