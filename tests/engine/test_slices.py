# SPDX-License-Identifier: Apache-2.0
"""The share of a class in the real scheduler, over virtual time."""

from __future__ import annotations

import pytest
from vllm.v1.request import RequestStatus

from tests.engine.bare_scheduler import (
    BE,
    LS,
    BareScheduler,
    Make,
    add,
    begin,
    nested,
    play,
    resume,
    step,
    suspend,
)
from vllm_qllm.policy import Resume, Run


def classes(max_wait_ms: float = 2000, slice_ms: float = 100) -> dict[str, object]:
    """Two of them, without riders."""
    return {
        "ride_slowdown": 1,
        "classes": [
            {"name": "ls", "max_priority": 0},
            {"name": "be", "max_wait_ms": max_wait_ms, "slice_ms": slice_ms},
        ],
    }


def steps_of(bare: BareScheduler, seconds: float, count: int) -> list[set[str]]:
    """Who was in each of the next steps, of ``seconds`` each."""
    found = []
    for _ in range(count):
        found.append(set(bare.begin()))
        bare.end(took=seconds)
    return found


@pytest.mark.parametrize(
    ("max_wait_ms", "slice_ms", "seconds", "expected"),
    [(2000, 100, 0.005, 1 / 21), (40, 10, 0.005, 1 / 5), (40, 10, 0.03, 1 / 5)],
)
def test_decodes_have_their_share_of_endless_urgent_ones(
    make: Make, max_wait_ms: float, slice_ms: float, seconds: float, expected: float
) -> None:
    bare = make(**classes(max_wait_ms, slice_ms))
    play(bare, [add("b1", BE, 16, out=900), step(b1=16), add("l1", LS, 16, out=900)])
    steps = steps_of(bare, seconds, 850)
    assert {"b1", "l1"} not in steps
    share = steps.count({"b1"}) / len(steps)
    assert share == pytest.approx(expected, rel=0.1)


def test_what_is_done_early_leaves_the_rest_of_its_slice_to_its_class(make: Make) -> None:
    bare = make(**classes())
    play(bare, [add("b1", BE, 64, out=90), begin(b1=64), suspend(), add("l1", LS, 16, out=9)])
    assert bare.nest() == {"l1": 16}
    bare.end(took=2.0)
    plan = bare.decide()
    assert plan == Resume(pytest.approx(0.1), protected=True)
    bare.step_in_flight.protected = True  # as the controller does
    bare.resume()
    bare.end(took=0.003)
    for left in (0.097, 0.067, 0.037, 0.007):
        plan = bare.decide()
        assert plan == Run(1, budget=pytest.approx(left), protected=True)
        assert bare.begin() == {"b1": 1}
        assert bare.step_in_flight.protected
        assert bare.step_in_flight.budget == pytest.approx(left)
        bare.end(took=0.03)
    assert bare.begin() == {"l1": 1}


def test_decodes_that_ride_are_served_and_prompts_are_not(make: Make) -> None:
    bare = make(blocks=200, ride_slowdown=2)
    bare.add("b0", BE, 16, out=900)
    bare.add("b1", BE, 16, out=900)
    steps_of(bare, 0.01, 9)
    bare.add("l1", LS, 16, out=900)
    steps = steps_of(bare, 0.01, 500)
    assert {"b0", "b1"} not in steps and {"l1", "b0", "b1"} in steps
    bare.add("b2", BE, 16, out=2)
    steps = steps_of(bare, 0.01, 250)
    (first,) = [n for n, names in enumerate(steps) if {"b2", "b0", "b1"} == names][:1]
    assert 199 <= first <= 202


@pytest.mark.parametrize("how", ["it ended", "it was aborted"])
def test_a_class_that_had_no_work_for_an_hour_begins_anew(make: Make, how: str) -> None:
    bare = make(**classes())
    bare.add("b1", BE, 16, out=2)
    if how == "it ended":
        steps_of(bare, 0.01, 2)
    else:
        play(bare, [add("l0", LS, 16, out=9), step(l0=16)])
        bare.abort("b1", "l0")
        assert bare.begin() == {}  # tells the workers
        bare.end()
    bare.clock.now += 3600
    play(bare, [add("b2", BE, 16), add("l1", LS, 16, out=3), step(l1=16), step(l1=1)])


def test_what_is_blocked_does_not_age(make: Make) -> None:
    bare = make(**classes())
    request = bare.add("b1", BE, 16)
    scheduler = bare.scheduler
    # As one whose KV comes from another machine.
    request.status = RequestStatus.WAITING_FOR_REMOTE_KVS
    scheduler.deferred_waiting.add(request)
    bare.add("l1", LS, 16, out=900)
    assert {"b1"} not in steps_of(bare, 0.1, 100)
    request.status = RequestStatus.WAITING
    assert {"b1"} not in steps_of(bare, 0.1, 19)
    assert {"b1"} in steps_of(bare, 0.1, 3)


def test_what_found_no_blocks_for_a_minute_has_one_slice_when_it_does(make: Make) -> None:
    bare = make(blocks=16, seqs=8, **classes())
    play(bare, [add("l1", LS, 100, out=900), step(l1=64), step(l1=36), add("b1", BE, 200)])
    assert {"b1"} not in steps_of(bare, 1.0, 60)
    assert bare.scheduler.view(bare.clock.now).classes[BE].owed <= 0.1 + 1.0 / 20 + 1e-6


def test_urgent_work_goes_on_where_what_is_owed_finds_no_blocks(make: Make) -> None:
    """On top of a suspended step, which before went on itself, and made urgent work wait."""
    three = [
        {"name": "chat", "max_priority": 0},
        {"name": "agent", "max_priority": 10, "max_wait_ms": 500},
        {"name": "batch"},
    ]
    bare = make(blocks=16, classes=three, ride_slowdown=1, max_preemptions=0)
    play(bare, [add("x", 11, 64, out=9), begin(x=64), suspend(), add("l1", LS, 64, out=90)])
    play(bare, [nested(l1=64), add("a", 5, 16 * 12)])
    for _ in range(10):
        assert bare.nest() == {"l1": 1}
        bare.end(took=0.1)
    play(bare, [])
    bare.clock.now += 1.0
    play(bare, [resume()])
