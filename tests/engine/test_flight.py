# SPDX-License-Identifier: Apache-2.0
"""Steps in flight are found by what is known of them, and no two of them share a lane."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_qllm.engine.flight import Flight
from vllm_qllm.engine.step import Step


def start(flight: Flight, level: int, *names: str, suspendable: bool = True) -> Step:
    lane = flight.lane(level) if suspendable else None
    output: Any = object()
    step = Step(
        number=flight.next_number(),
        level=level,
        lane=lane or 0,
        suspendable=suspendable,
        budget=None,
        protected=False,
        request_ids=dict.fromkeys(names, 1),
        output=output,
        unwritten_blocks=frozenset({level}),
    )
    flight.start(step)
    return step


def test_of_none_there_is_nothing() -> None:
    flight = Flight(lanes=2)
    assert (len(flight), flight.below, flight.depth, flight.suspended) == (0, None, 0, [])
    assert flight.suspended_ids == set() and flight.unwritten_blocks == frozenset()
    with pytest.raises(IndexError):
        _ = flight.last


def test_nested_steps() -> None:
    flight = Flight(lanes=3)
    outer = start(flight, 2, "a", "b")
    assert flight.suspended == [], "it runs"
    outer.suspend(1.0, 1)
    inner = start(flight, 1, "c")
    inner.suspend(2.0, 1)
    last = start(flight, 0, "d", suspendable=False)
    assert list(flight) == [outer, inner, last] and flight.last is last and flight.below is inner
    assert flight.depth == 2 and flight.suspended == [outer, inner]
    assert flight.suspended_ids == {"a", "b", "c"} and flight.unwritten_blocks == {1, 2}
    assert flight.suspending("c") is inner and flight.suspending("d") is None
    assert inner.output is not None and flight.of(inner.output) is inner
    assert [step.number for step in flight] == [1, 2, 3]
    flight.end(last)
    assert flight.last is inner


def test_batches_end_in_any_order() -> None:
    flight = Flight(lanes=1)
    first, second = (start(flight, 0, name, suspendable=False) for name in "ab")
    flight.end(first)
    assert flight.last is second and flight.of(first.output) is None  # type: ignore[arg-type]


def test_a_class_keeps_to_its_lane() -> None:
    flight = Flight(lanes=3)
    assert [flight.lane(level) for level in (1, 2)] == [1, 2]


def test_two_steps_of_one_class_have_a_lane_each_while_there_are_some() -> None:
    flight = Flight(lanes=3)
    start(flight, 1).suspend(1.0, 1)
    assert flight.lane(1) == 2
    start(flight, 1).suspend(2.0, 1)
    assert flight.lane(1) is None, "the first lane is for what is never suspended"
    assert flight.lane(0) is None
