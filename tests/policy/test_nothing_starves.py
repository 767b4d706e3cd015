# SPDX-License-Identifier: Apache-2.0
"""On a machine on which urgent work never ends everybody keeps a share of it, and nobody more.

Steps of a millisecond and of ten seconds, that can be suspended and that cannot, of two to four
classes whose promises are drawn as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.policy.machine import DECODES, Load, Part, longest_wait, run, served, share
from vllm_qllm.config import PriorityConfig
from vllm_qllm.policy import Policy, StepPolicy, StrictPolicy

URGENT_STEP = 0.02
TWO = [{"name": "ls", "max_priority": 0}, {"name": "be", "max_wait_ms": 500, "slice_ms": 50}]
THREE = [
    {"name": "ls", "max_priority": 0},
    {"name": "mid", "max_priority": 10, "max_wait_ms": 300, "slice_ms": 30},
    {"name": "be", "max_wait_ms": 500, "slice_ms": 50},
]


def config(classes: list[dict[str, Any]]) -> PriorityConfig:
    return PriorityConfig.from_dict({"classes": classes})


def two(max_wait_ms: float, slice_ms: float) -> PriorityConfig:
    return config([TWO[0], {"name": "be", "max_wait_ms": max_wait_ms, "slice_ms": slice_ms}])


# -- any steps, any promises -----------------------------------------------------------------------


def lengths(least: float, most: float) -> st.SearchStrategy[float]:
    """Log-uniform."""
    return st.floats(0, 1).map(lambda x: least * (most / least) ** x)


@st.composite
def machines(draw: st.DrawFn, most: int = 3) -> tuple[PriorityConfig, list[Load]]:
    """Promises that leave a tenth to urgent work, and the steps of all classes.

    Some are milliseconds, some seconds; on one machine they are within a factor of ten, so that
    many turns are few steps.
    """
    base = draw(lengths(3e-3, 3))
    count = draw(st.integers(1, most))
    loads, classes = [Load(base * draw(lengths(1 / 3, 3)))], []
    for level in range(1, count + 1):
        step = base * draw(lengths(1 / 3, 3))
        spacing = draw(st.none() | st.floats(0.01, 1).map(lambda x, step=step: x * step))
        loads.append(Load(step, spacing))
        max_wait = base * draw(lengths(0.1, 30))
        classes.append(
            {
                "name": f"c{level}",
                "max_priority": level if level < count else None,
                "max_wait_ms": max_wait * 1000,
                "slice_ms": max_wait * 1000 * draw(lengths(0.03, 0.4)),
            }
        )
    return config([TWO[0], *classes]), loads


def long_enough(config: PriorityConfig, loads: list[Load]) -> float:
    """Seconds of several turns of each class, of which each has its share."""
    promised = zip(config.classes[1:], loads[1:], strict=True)
    turn = max(c.max_wait_ms / 1000 + x.step / c.share for c, x in promised)
    return 8 * (turn + loads[0].step)


@settings(max_examples=150, deadline=None)
@given(machines(), st.sampled_from([StrictPolicy, StepPolicy]), st.none() | st.floats(0.1, 10))
def test_everybody_keeps_his_share(
    made: tuple[PriorityConfig, list[Load]], kind: type[Policy], arrivals: float | None
) -> None:
    made_config, loads = made
    classes = list(enumerate(made_config.classes))[1:]
    arrive = arrivals and arrivals * loads[0].step
    parts = run(kind(made_config), made_config, loads, long_enough(*made), arrive)
    seconds = parts[-1].end
    # What one may lag behind: its own wait, and all others' being served once before it. Those
    # that it must wait for because they are suspended on top of it have what it is owed after each
    # urgent step, which is more each time, and half of the machine at most.
    steps = sum(x.step for x in loads[1:])
    slices = sum(c.slice_ms / 1000 for _, c in classes)
    late = loads[0].step
    if len(classes) > 1:
        least = min(c.slice_ms / c.max_wait_ms for _, c in classes)
        rising = sum(math.sqrt(2 * x.step * loads[0].step / least) for x in loads[1:])
        late += len(classes) * (2 * (steps + slices + loads[0].step) + rising)
    for level, cls in classes:
        lag = cls.share * (cls.max_wait_ms / 1000 + late)
        assert served(parts, level) >= cls.share * seconds - lag - 1e-6, level
    # What the less urgent have together beyond their shares is what was left of their last turns.
    promised = sum(c.share for _, c in classes)
    beyond = steps + slices + promised * late
    assert served(parts, 0) >= (1 - promised) * seconds - beyond - 1e-6


@settings(max_examples=150, deadline=None)
@given(machines(most=1), st.sampled_from([StrictPolicy, StepPolicy]))
def test_a_wait_is_bounded(
    made: tuple[PriorityConfig, list[Load]], kind: type[StrictPolicy]
) -> None:
    """By ``max_wait``, and longer only for what ran half a slice longer than its slice."""
    made_config, (urgent, load) = made
    parts = run(kind(made_config), made_config, [urgent, load], long_enough(*made))
    cls = made_config.classes[1]
    max_wait, slice_ = cls.max_wait_ms / 1000, cls.slice_ms / 1000
    overrun = load.spacing if load.spacing and kind.suspendable else load.step
    bound = max_wait * max(1, 0.5 + overrun / slice_) + urgent.step
    assert longest_wait(parts, 1) <= bound + 1e-6


# -- the cases of the past -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("promise", "step", "expected"),
    [
        # Decodes of which 36 fit into a slice, and steps of a GPU, one of which is far less.
        ((2000, 100), 100 / 36 / 1000, 1 / 21),
        ((2000, 100), 0.005, 1 / 21),
        ((40, 10), 0.005, 1 / 5),
        ((40, 10), 0.02, 1 / 5),
    ],
)
def test_a_slice_is_as_many_steps_as_fit(
    promise: tuple[float, float], step: float, expected: float
) -> None:
    made = two(*promise)
    parts = run(StrictPolicy(made), made, [Load(0.005), Load(step)], 200.0)
    assert share(parts, 1) == pytest.approx(expected, rel=0.03)


def test_a_step_that_ends_within_its_slice_leaves_the_rest_of_it_to_its_class() -> None:
    """Steps of 103 ms: what is resumed for a slice is done after 3 ms."""
    made = two(2000, 100)
    parts = run(StrictPolicy(made), made, [Load(0.005), Load(0.103, 0.001)], 100.0)
    turns = turns_of(parts, 1)
    assert len(turns) > 40
    assert all(0.0985 <= turn <= 0.1025 for turn in turns)
    short = [p for p in parts if p.level == 1 and p.end - p.start < 0.01]
    assert short, "no step ended early: that was not tested"


def turns_of(parts: list[Part], level: int) -> list[float]:
    """How long a class had the machine each time."""
    turns: list[float] = []
    for before, part in pairwise(parts):
        if part.level == level:
            if before.level != level:
                turns.append(0.0)
            turns[-1] += part.end - part.start
    return turns[:-1]


def test_short_free_time_is_service_but_no_new_beginning() -> None:
    """Urgent work pauses for 5 ms a second, which is not the share that was promised."""
    made = two(2000, 100)

    class Pauses(StrictPolicy):
        def plan(self, view: Any) -> Any:
            self.asked = getattr(self, "asked", 0) + 1
            if self.asked % 200 == 0 and not any(c.owed for c in view.classes):
                return super().plan(
                    type(view)((type(view.classes[0])(0, 0, 0, 0), *view.classes[1:]))
                )
            return super().plan(view)

    parts = run(Pauses(made), made, [Load(0.005), Load(0.005)], 200.0)
    assert share(parts, 1) == pytest.approx(1 / 21, rel=0.03)


def test_riders_are_served() -> None:
    """Decodes that all ride are held back by nobody; those that ride seldom have the rest."""
    made = two(2000, 100)
    for riding in (1.0, 0.9, 0.05):
        parts = run(StrictPolicy(made), made, [Load(0.02), Load(0.02, None, riding, DECODES)], 60)
        assert share(parts, 1) == 0
    parts = run(StrictPolicy(made), made, [Load(0.02), Load(0.02, None, 0.02, DECODES)], 400)
    own, ridden = share(parts, 1), 0.02 * share(parts, 0)
    assert own > 0
    assert own + ridden == pytest.approx(1 / 21, rel=0.03)


def test_prompts_stand_still_however_many_decodes_ride() -> None:
    made = two(2000, 100)
    both = Load(0.02, None, 1.0, (True, True))
    parts = run(StrictPolicy(made), made, [Load(0.02), both], 200)
    assert share(parts, 1) == pytest.approx(1 / 21, rel=0.03)


def test_time_between_steps_belongs_to_the_step_before() -> None:
    """A fifth as long as a step: of the machine's time a class has its share all the same."""
    made = two(400, 100)
    parts = run(StrictPolicy(made), made, [Load(0.005), Load(0.005)], 50, overhead=0.001)
    steps = [sum(p.level == level for p in parts) for level in (0, 1)]
    assert steps[1] / sum(steps) == pytest.approx(1 / 5, rel=0.02)


def test_two_that_run_over_do_not_take_turns_at_the_expense_of_urgent_work() -> None:
    """While one runs its ten seconds the other one waits for longer than it should."""
    made = config([THREE[0], {"name": "mid", "max_priority": 9}, {"name": "be"}])
    parts = run(StepPolicy(made), made, [Load(0.2), Load(10.0), Load(10.0)], 2000)
    assert share(parts, 0) >= 1 - 2 / 21 - 0.02
    assert min(share(parts, 1), share(parts, 2)) >= 1 / 21


# A step of a less urgent class takes several slices.
@pytest.mark.parametrize("kind", [StrictPolicy, StepPolicy])
@pytest.mark.parametrize("classes", [TWO, THREE], ids=["two classes", "three classes"])
def test_each_class_has_what_it_was_promised(
    kind: Callable[[PriorityConfig], Policy], classes: list[dict[str, Any]]
) -> None:
    made = config(classes)
    loads = [Load(URGENT_STEP)] + [Load(0.3, 0.003)] * (len(classes) - 1)
    parts = run(kind(made), made, loads, 300.0)
    for level, cls in enumerate(made.classes):
        if level:
            assert share(parts, level) == pytest.approx(cls.share, rel=0.05)
    # And what is left is the urgent class's.
    assert share(parts, 0) == pytest.approx(1 - sum(c.share for c in made.classes[1:]), rel=0.01)


@pytest.mark.parametrize("arrive", [None, 0.2, 0.02, 0.005])
def test_a_slice_is_a_slice_however_many_urgent_requests_arrive(arrive: float | None) -> None:
    made = config(TWO)
    loads = [Load(URGENT_STEP), Load(0.5, 0.001)]
    parts = run(StrictPolicy(made), made, loads, 100.0, arrive=arrive)
    assert share(parts, 1) == pytest.approx(made.classes[1].share, rel=0.03)


def test_a_class_that_begins_later_has_earned_nothing_before() -> None:
    made = two(2000, 100)
    parts = run(StrictPolicy(made), made, [Load(0.02), Load(0.02, begins=30.0)], 40.0)
    first = next(p.start for p in parts if p.level == 1)
    assert 32.0 <= first <= 32.02
    assert turns_of(parts, 1)[0] == pytest.approx(0.1, abs=0.021)
