# SPDX-License-Identifier: Apache-2.0
"""A machine in virtual time on which urgent work never ends: everybody keeps a share of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from vllm_qllm.config import PriorityConfig
from vllm_qllm.policy import (
    ClassView,
    EngineView,
    Policy,
    Resume,
    StepPolicy,
    StrictPolicy,
    SuspendedView,
)

URGENT_STEP = 0.02
TWO = [{"name": "ls", "max_priority": 0}, {"name": "be", "max_wait_ms": 500, "slice_ms": 50}]
THREE = [
    {"name": "ls", "max_priority": 0},
    {"name": "mid", "max_priority": 10, "max_wait_ms": 300, "slice_ms": 30},
    {"name": "be", "max_wait_ms": 500, "slice_ms": 50},
]


@dataclass
class Part:
    """The machine worked for one class from ``start`` to ``end``."""

    rank: int
    start: float
    end: float


def simulate(
    policy: Policy, classes: int, step: float, arrive: float | None, until: float = 60.0
) -> list[Part]:
    """Who had the machine when, with every class always having work.

    Args:
        policy: decides.
        classes: how many; the first one's steps take ``URGENT_STEP``.
        step: seconds that a step of every other class takes.
        arrive: seconds between arrivals of the most urgent class, each of which suspends what
            may be suspended and is not protected; None: they do not suspend.
        until: seconds to simulate.
    """
    now, parts = 0.0, []
    last_led = [0.0] * classes
    stack: list[tuple[int, float, float]] = []  # rank, seconds left, suspended at
    while now < until:
        seen = EngineView(
            tuple(ClassView(r, 1, 0, 0, now - last_led[r]) for r in range(classes)),
            tuple(SuspendedView(rank, now - at, step - left, 1) for rank, left, at in stack),
        )
        plan = policy.plan(seen)
        if isinstance(plan, Resume):
            rank, left, _ = stack.pop()
            suspendable = True
        else:
            rank, left = plan.rank, step if plan.rank else URGENT_STEP
            suspendable = plan.suspendable
        ran = left
        if suspendable and rank:
            if plan.budget is not None:
                ran = min(ran, plan.budget)
            if arrive is not None and not plan.protected:
                ran = min(ran, arrive - now % arrive)
        parts.append(Part(rank, now, now + ran))
        now += ran
        last_led[rank] = now
        if left - ran > 1e-9:
            stack.append((rank, left - ran, now))
    return parts


def longest_wait(parts: list[Part], rank: int) -> float:
    """Longest time between two parts of one class."""
    ends = [0.0] + [p.end for p in parts if p.rank == rank]
    starts = [p.start for p in parts if p.rank == rank] + [parts[-1].end]
    return max(start - end for end, start in zip(ends, starts, strict=True))


def share(parts: list[Part], rank: int) -> float:
    """Of the machine's time."""
    return sum(p.end - p.start for p in parts if p.rank == rank) / parts[-1].end


def config(classes: list[dict[str, Any]]) -> PriorityConfig:
    return PriorityConfig.from_dict({"classes": classes})


# A step of a less urgent class takes several slices.
@pytest.mark.parametrize("kind", [StrictPolicy, StepPolicy])
@pytest.mark.parametrize("classes", [TWO, THREE], ids=["two classes", "three classes"])
def test_each_class_runs_within_its_bound(
    kind: Callable[[PriorityConfig], Policy], classes: list[dict[str, Any]]
) -> None:
    made = config(classes)
    step = 0.3
    parts = simulate(kind(made), len(classes), step, arrive=None)
    for rank, cls in enumerate(made.classes[1:], 1):
        bound = cls.max_wait_ms / 1000 + URGENT_STEP
        for r, other in enumerate(made.classes):
            if r in (0, rank):
                continue
            # Others that have waited too long may come first, once each: for a slice, or, when
            # steps are not suspended or theirs must end before this one's can go on, for a step.
            slice_ = other.slice_ms / 1000
            if kind is StepPolicy:
                bound += step
            elif r > rank:
                bound += slice_
            else:
                # What this class must wait for gets every second slice until it is done, and
                # urgent steps are not cut: twice the time of that step, plus an urgent one a slice.
                bound += 2 * step + math.ceil(step / slice_) * URGENT_STEP
        assert longest_wait(parts, rank) <= bound + 1e-6
    # And what is left is the urgent class's: most of it, whose steps are short.
    assert share(parts, 0) > 0.5 or kind is StepPolicy


@pytest.mark.parametrize("arrive", [None, 0.2, 0.02, 0.005])
def test_a_slice_is_a_slice_however_many_urgent_requests_arrive(arrive: float | None) -> None:
    """``slice / (max_wait + slice)`` of the machine, less one urgent step a turn."""
    made = config(TWO)
    parts = simulate(StrictPolicy(made), 2, step=0.5, arrive=arrive)
    assert share(parts, 1) >= 0.05 / (0.5 + 0.05 + URGENT_STEP) * 0.98


def test_a_bound_shorter_than_a_step_leaves_room_for_others() -> None:
    """A step of the middle class lasts longer than its bound, so it is always at its bound."""
    made = config([THREE[0], THREE[1] | {"max_wait_ms": 5}, THREE[2]])
    parts = simulate(StepPolicy(made), 3, step=0.3, arrive=None)
    assert share(parts, 0) > 0
    assert share(parts, 2) > 0
