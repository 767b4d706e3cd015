# SPDX-License-Identifier: Apache-2.0
"""The cost of decode steps: what is learnt from measurements, and what is concluded from it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_qllm.engine.decode_cost import DecodeCost


def learnt(pairs: list[tuple[int, float]]) -> DecodeCost:
    cost = DecodeCost()
    for requests, seconds in pairs:
        cost.observe(requests, seconds)
    return cost


def line(base: float, each: float, noise: float = 0.0, count: int = 200) -> list[tuple[int, float]]:
    rng = random.Random(1)
    sizes = [rng.randint(1, 16) for _ in range(count)]
    return [(n, (base + each * n) * (1 + rng.uniform(-noise, noise))) for n in sizes]


@given(base=st.floats(1e-3, 1.0), each=st.floats(0.0, 0.1))
def test_a_line_is_found_exactly(base: float, each: float) -> None:
    cost = learnt(line(base, each))
    for n in (1, 8, 16):
        assert cost.predict(n) == pytest.approx(base + each * n, rel=1e-4)


def test_a_noisy_line_is_found_nearly() -> None:
    cost = learnt(line(0.016, 0.001, noise=0.1))
    for n in (1, 4, 8, 16):
        assert cost.predict(n) == pytest.approx(0.016 + 0.001 * n, rel=0.1)


def test_the_past_is_forgotten() -> None:
    """A server that has become slower is believed within a few hundred steps."""
    cost = learnt(line(0.01, 0.0005) + line(0.05, 0.004, count=400))
    assert cost.predict(8) == pytest.approx(0.05 + 0.004 * 8, rel=0.02)


@given(st.lists(st.tuples(st.integers(1, 64), st.floats(1e-4, 5.0)), max_size=60))
def test_more_requests_never_cost_less(pairs: list[tuple[int, float]]) -> None:
    cost = learnt(pairs)
    predicted = [cost.predict(n) for n in range(1, 65)]
    known = [p for p in predicted if p is not None]
    # Where the fitted line is not positive it says nothing; it rises, so that is where it begins.
    assert predicted == [None] * (64 - len(known)) + known
    assert known == sorted(known)
    assert all(p > 0 for p in known)


@pytest.mark.parametrize(
    "pairs", [[], [(1, 0.01)], [(4, 0.01)] * 50], ids=["none", "one", "one size"]
)
def test_nothing_is_known_without_two_sizes(pairs: list[tuple[int, float]]) -> None:
    assert learnt(pairs).predict(1) is None


def test_the_unknown_is_tried_with_one() -> None:
    assert DecodeCost().riders(2, 10, slowdown=1.25) == 1


@given(
    pairs=st.lists(st.tuples(st.integers(1, 64), st.floats(1e-4, 5.0)), max_size=40),
    urgent=st.integers(-1, 32),
    candidates=st.integers(-1, 64),
    slowdown=st.floats(1.0, 100.0),
)
def test_riders_are_candidates_and_none_without_leave(
    pairs: list[tuple[int, float]], urgent: int, candidates: int, slowdown: float
) -> None:
    cost = learnt(pairs)
    riders = cost.riders(urgent, candidates, slowdown)
    assert 0 <= riders <= max(candidates, 0)
    if urgent <= 0 or slowdown == 1.0:
        assert riders == 0


@given(
    base=st.floats(1e-3, 1.0),
    each=st.floats(1e-5, 0.1),
    urgent=st.integers(1, 16),
    slowdown=st.floats(1.0, 4.0),
)
def test_riders_keep_within_the_slowdown(
    base: float, each: float, urgent: int, slowdown: float
) -> None:
    riders = learnt(line(base, each)).riders(urgent, 1000, slowdown)
    allowed = (base + each * urgent) * slowdown
    assert base + each * (urgent + riders) <= allowed * 1.001
    assert riders == 1000 or base + each * (urgent + riders + 1.01) > allowed * 0.999


def test_free_riders_all_come() -> None:
    assert learnt(line(0.02, 0.0)).riders(2, 10, slowdown=1.1) == 10


def test_what_was_measured_at_large_sizes_does_not_make_small_ones_free() -> None:
    """Cost that grows faster than the number: the line falls below zero before it reaches one."""
    rng = random.Random(2)
    cost = learnt([(n, 1e-4 * n * n) for n in (rng.randint(20, 40) for _ in range(200))])
    assert cost.predict(1) is None
    assert cost.predict(30) == pytest.approx(1e-4 * 30 * 30, rel=0.1)
    assert cost.riders(1, 30, slowdown=1.25) <= 1


@given(times=st.integers(1, 60), rows=st.integers(1, 16), seconds=st.floats(1e-3, 1.0))
def test_many_like_steps_are_learnt_at_once(times: int, rows: int, seconds: float) -> None:
    before = line(0.02, 0.003, noise=0.1, count=20)
    singly, at_once = learnt(before), learnt(before)
    for _ in range(times):
        singly.observe(rows, seconds)
    at_once.observe(rows, seconds, times)
    for n in (1, 8, 16):
        one, other = singly.predict(n), at_once.predict(n)
        assert (one is None) == (other is None)
        assert one is None or other == pytest.approx(one, rel=1e-6, abs=1e-9)
