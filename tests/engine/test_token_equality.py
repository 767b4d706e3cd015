# SPDX-License-Identifier: Apache-2.0
"""Invariants 1 and 3: suspended or not, every request gets the tokens it gets alone."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.engine.scripted import BE, LS, Result, ScriptedEngine, StopEverywhere

VOCAB = 250


def prompt(seed: int, length: int, shared: int = 0) -> list[int]:
    """Random tokens; the first ``shared`` are the same for every seed."""
    common = random.Random(12345)
    tokens = [common.randrange(VOCAB) for _ in range(min(shared, length))]
    own = random.Random(seed)
    return tokens + [own.randrange(VOCAB) for _ in range(length - len(tokens))]


def assert_same(got: Result, expected: Result, what: str) -> None:
    assert got.tokens == expected.tokens, what
    assert got.logprobs == pytest.approx(expected.logprobs, abs=1e-4), what


requests = st.tuples(
    st.integers(0, 5),  # seed: equal ones share the whole prompt
    st.integers(2, 400),  # prompt tokens
    st.sampled_from([0, 64, 160]),  # of which shared with every other request
    st.integers(1, 6),  # output tokens
    st.sampled_from([LS, BE, BE]),
)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    arrivals=st.lists(st.tuples(st.integers(0, 40), requests), min_size=2, max_size=7),
    ride=st.integers(0, 2),
)
def test_random_arrivals_at_random_yield_points(
    strict_engine: ScriptedEngine,
    monkeypatch: pytest.MonkeyPatch,
    arrivals: list[tuple[int, tuple[int, int, int, int, int]]],
    ride: int,
) -> None:
    engine = strict_engine
    monkeypatch.setattr(StopEverywhere, "ride", ride)
    specs = [(prompt(s, n, shared), out, p) for _, (s, n, shared, out, p) in arrivals]
    expected = [engine.alone(tokens, out) for tokens, out, _ in specs]
    ids = engine.run_arrivals(specs, [due for due, _ in arrivals])
    for i, reference in enumerate(expected):
        assert_same(engine.results[ids[i]], reference, f"request {i} of {arrivals}")
    engine.reset()
