# SPDX-License-Identifier: Apache-2.0
"""Rules that engine and capacity model share."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_qllm.policy import ClassView, EngineView, Resume, Run, SuspendedView
from vllm_qllm.policy.rules import PlanError, checked, riders_beside_prompts, victim_order

CLASSES = tuple(ClassView(level, 1, 0, 0) for level in range(3))
FREE = EngineView(CLASSES)
NESTED = EngineView(CLASSES, (SuspendedView(1, 0.0, 0.0, 1),))


@pytest.mark.parametrize("plan", [Run(0), Run(2, riders=3, budget=0.0), Run(1, budget=2)])
def test_what_can_be_carried_out(plan: Run) -> None:
    assert checked(plan, FREE, "p") is plan


def test_a_suspended_step_can_be_resumed_or_nested_on() -> None:
    for plan in (Resume(), Resume(budget=0.1, protected=True), Run(0)):
        assert checked(plan, NESTED, "p") is plan


@pytest.mark.parametrize(
    ("plan", "view"),
    [
        *((plan, FREE) for plan in (None, 0, "run", Resume(), Run(3), Run(-1), Run(1.0))),  # type: ignore[arg-type]
        *((Run(0, riders=n), FREE) for n in (-1, 1.5, None)),  # type: ignore[arg-type]
        *((Run(0, budget=b), FREE) for b in (-1, math.nan, "1")),  # type: ignore[arg-type]
        (Run(1), NESTED),
        (Resume(budget=-0.1), NESTED),
    ],
)
def test_what_cannot_is_named(plan: Any, view: EngineView) -> None:
    with pytest.raises(PlanError) as refused:
        checked(plan, view, "module:Mine")
    text = str(refused.value)
    assert "'module:Mine'" in text and repr(plan) in text and f"below {view.limit}" in text
    assert ("Resume" in text.partition("allowed")[2]) == (view is NESTED)


@given(st.integers(0, 64), st.integers(0, 100), st.floats(1.0, 100.0), st.integers(1, 4))
def test_riders_leave_prompts_their_tokens(
    tokens: int, candidates: int, slowdown: float, each: int
) -> None:
    count = riders_beside_prompts(tokens, 64, candidates, slowdown, each)
    assert 0 <= count <= candidates
    assert tokens + count * each <= 64
    assert count * each <= tokens * (slowdown - 1) + 1e-6


def test_the_order_of_victims() -> None:
    # Level, output tokens of ten, price, arrival.
    loses_first = [(2, 0, 0.0, 9.0), (2, 0, 0.0, 1.0), (2, 0, 0.5, 9.0), (1, 0, 0.0, 9.0)]
    loses_first += [(2, 9, 0.0, 9.0), (1, 9, 0.0, 9.0)]
    keys = [victim_order(level, out, 9, price, at) for level, out, price, at in loses_first]
    assert keys == sorted(keys)
