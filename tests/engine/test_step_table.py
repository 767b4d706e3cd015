# SPDX-License-Identifier: Apache-2.0
"""What is scheduled when: scenarios with the exact tokens of every step.

Blocks hold 16 tokens, a step 64 unless said otherwise. ``out`` counts the token that the last
prefill step already gives. Riders are switched off except where they are the subject.
"""

from __future__ import annotations

import pytest

from tests.engine.bare_scheduler import (
    AGENT,
    BATCH,
    BE,
    LS,
    THREE_CLASSES,
    BareScheduler,
    Make,
    Scenario,
    add,
    begin,
    end,
    expect,
    idle,
    nest,
    nested,
    plan,
    play,
    resume,
    resume_anyway,
    step,
    steps,
    suspend,
    wait,
)

SLOTS: dict[str, Scenario] = {
    "urgent work needs no slot of those that less urgent work holds": (
        {"seqs": 2},
        [
            add("b1", BE, 16, out=4),
            add("b2", BE, 16, out=4),
            step(b1=16, b2=16),
            add("l1", LS, 16, out=2),
            step(l1=16),
            step(l1=1),
            expect(preemptions={}, running={"b1", "b2"}),
            steps(3, b1=1, b2=1),
            idle(),
        ],
    ),
    "urgent work shares its own slots": (
        {"seqs": 2},
        [
            add("b1", BE, 16, out=2),
            step(b1=16),
            *(add(f"l{i}", LS, 16, out=2) for i in range(3)),
            step(l0=16, l1=16),
            step(l0=1, l1=1),
            step(l2=16),
            step(l2=1),
            step(b1=1),
            idle(),
        ],
    ),
    "no request leaves its slot for one of its own class, however early that arrived": (
        {"seqs": 1},
        [
            add("b1", 5, 16, out=5, arrival=100.0),
            step(b1=16),
            add("b2", 5, 16, out=2, arrival=-100.0),
            add("b3", 1, 16, out=2, arrival=-200.0),
            steps(4, b1=1),
            step(b3=16),
            step(b3=1),
            step(b2=16),
            step(b2=1),
            expect(preemptions={}),
            idle(),
        ],
    ),
}

BUDGET: dict[str, Scenario] = {
    "urgent prompts come before the rest of a less urgent prompt": (
        {},
        [
            add("b1", BE, 160, out=1),
            step(b1=64),
            add("l1", LS, 100, out=1),
            step(l1=64),
            step(l1=36),
            step(b1=64),
            step(b1=32),
            idle(),
        ],
    ),
    "an urgent decode is never put beside a less urgent prefill": (
        {"ride_slowdown": 100},
        [
            add("b1", BE, 160, out=1),
            step(b1=64),
            add("l1", LS, 16, out=4),
            step(l1=16),
            steps(3, l1=1),
            step(b1=64),
            step(b1=32),
            idle(),
        ],
    ),
    "not even when a policy lets less urgent work ride": (
        {},
        [
            add("b1", BE, 160, out=1),
            step(b1=64),
            add("l1", LS, 16, out=2),
            step(l1=16),
            plan(0, riders=9),
            step(l1=1),
            expect(finished={"l1"}),
        ],
    ),
    "a less urgent arrival waits for urgent decodes": (
        {"ride_slowdown": 100},
        [
            add("l1", LS, 16, out=4),
            step(l1=16),
            add("b1", BE, 16, out=1),
            steps(3, l1=1),
            step(b1=16),
            idle(),
        ],
    ),
    "while nothing is known about its cost, one decode rides": (
        {"ride_slowdown": 1.25},
        [
            add("b1", BE, 16, out=5),
            add("b2", BE, 16, out=5),
            step(b1=16, b2=16),
            add("l1", LS, 16, out=3),
            # A prefill of 16 tokens takes up to four along.
            step(l1=16, b1=1, b2=1),
            # b2 follows when b1 has come further, so the one that is nearer its end keeps riding.
            step(l1=1, b1=1),
            step(l1=1, b1=1),
            step(b1=1, b2=1),
            steps(2, b2=1),
            idle(),
        ],
    ),
    "nobody rides when no slowdown is allowed": (
        {"ride_slowdown": 1},
        [
            add("b1", BE, 16, out=3),
            step(b1=16),
            add("l1", LS, 16, out=3),
            step(l1=16),
            steps(2, l1=1),
            steps(2, b1=1),
            idle(),
        ],
    ),
    "held-back work runs within its bound although urgent work never ends": (
        {},
        [
            add("b1", BE, 100, out=2),
            add("l1", LS, 16, out=9),
            step(l1=16),
            steps(3, l1=1),
            wait(1.9),
            step(l1=1),
            wait(0.2),
            begin(b1=64),
            end(took=0.11),
            steps(2, l1=1),
            wait(2.1),
            begin(b1=36),
            end(took=0.07),
            # What is left of its slice is its own.
            begin(b1=1),
            end(took=0.04),
            steps(2, l1=1),
            idle(),
        ],
    ),
    "a class that has just run is not held back, however long its step took": (
        {},
        [
            add("b1", BE, 100, out=1),
            add("b2", BE, 16, out=1),
            begin(b1=64),
            end(took=3.0),
            add("l1", LS, 16, out=2),
            step(l1=16),
            step(l1=1),
            step(b1=36, b2=16),
            idle(),
        ],
    ),
    "steps that last longer than the bound do not shut urgent work out": (
        {"policy": "step"},
        [
            add("b1", BE, 64 * 4, out=1),
            begin(b1=64),
            add("l1", LS, 16, out=3),
            end(took=2.6),
            step(l1=16),
            step(l1=1),
            step(l1=1),
            begin(b1=64),
            end(took=2.6),
            steps(2, b1=64),
            idle(),
        ],
    ),
    "the same for a step that was suspended meanwhile": (
        {},
        [
            add("b1", BE, 100, out=1),
            add("b2", BE, 16, out=1),
            begin(b1=64),
            suspend(ran=2.0),
            add("l1", LS, 16, out=3),
            nested(l1=16),
            nested(l1=1),
            wait(2.1),
            resume(),
            end(took=0.11),
            step(l1=1),
            step(b1=36, b2=16),
            idle(),
        ],
    ),
}

RIDERS: dict[str, Scenario] = {
    "decodes ride beside an urgent prefill, as many as its tokens allow": (
        {"ride_slowdown": 1.25},
        [
            *(add(f"b{i}", BE, 16, out=3) for i in range(3)),
            step(b0=16, b1=16, b2=16),
            add("l1", LS, 8, out=1),
            step(l1=8, b0=1, b1=1),
            # Too short a prompt to take anybody along.
            add("l2", LS, 3, out=1),
            step(l2=3),
            step(b0=1, b1=1, b2=1),
            step(b2=1),
            idle(),
        ],
    ),
    "beside a chunk that leaves room for it": (
        {"ride_slowdown": 1.25},
        [
            add("b1", BE, 16, out=2),
            step(b1=16),
            add("l1", LS, 70, out=1),
            # vLLM schedules admitted requests first: a rider would take a prompt token's place.
            step(l1=64),
            step(l1=6, b1=1),
            idle(),
        ],
    ),
    "but no prefill rides": (
        {"ride_slowdown": 100},
        [
            add("b1", BE, 16, out=2),
            step(b1=16),
            add("b2", BE, 160, out=1),
            add("l1", LS, 16, out=1),
            step(l1=16, b1=1),
            step(b2=64),
            add("l2", LS, 16, out=1),
            step(l2=16),
        ],
    ),
    "riders leave the leading class its slots": (
        {"ride_slowdown": 100, "seqs": 2},
        [
            add("b1", BE, 16, out=4),
            add("b2", BE, 16, out=4),
            step(b1=16, b2=16),
            add("l1", LS, 16, out=1),
            add("l2", LS, 16, out=2),
            step(l1=16, l2=16),
            # One slot is left beside l2.
            step(l2=1, b1=1),
            steps(2, b1=1, b2=1),
            step(b2=1),
            idle(),
        ],
    ),
    "riders alone do not nest": (
        {"ride_slowdown": 100, "blocks": 9, "classes": THREE_CLASSES, "max_preemptions": 0},
        [
            add("x", BATCH, 16, out=5),
            step(x=16),
            add("a", AGENT, 64, out=1),
            plan(1),
            begin(a=64),
            suspend(),
            # Four blocks are free, and x needs one of them for its next token.
            add("l1", LS, 70, out=1),
            nested(),
            resume_anyway(),
            end(),
            step(l1=64),
        ],
    ),
}

NESTING: dict[str, Scenario] = {
    "urgent work nests on a suspended step, and its decodes too": (
        {},
        [
            add("b1", BE, 100, out=2),
            begin(b1=64),
            suspend(),
            add("l1", LS, 100, out=3),
            nested(l1=64),
            nested(l1=36),
            nested(l1=1),
            nested(l1=1),
            resume(),
            end(),
            step(b1=36),
            step(b1=1),
            idle(),
        ],
    ),
    "nothing as urgent as a suspended step nests on it": (
        {},
        [
            add("b1", BE, 100, out=1),
            begin(b1=64),
            suspend(),
            add("b2", 1, 16, out=1, arrival=-1.0),
            resume(),
            suspend(),
            add("l1", LS, 16, out=1),
            nested(l1=16),
            resume(),
            end(),
            step(b1=36, b2=16),
            idle(),
        ],
    ),
    "requests of a suspended step do not ride": (
        {"ride_slowdown": 100},
        [
            add("b1", BE, 16, out=3),
            step(b1=16),
            begin(b1=1),
            suspend(),
            add("l1", LS, 16, out=3),
            nested(l1=16),
            nested(l1=1),
            nested(l1=1),
            resume(),
            end(),
            step(b1=1),
            idle(),
        ],
    ),
    "others of less urgent classes do": (
        {"ride_slowdown": 100, "classes": THREE_CLASSES},
        [
            add("a1", AGENT, 16, out=5),
            step(a1=16),
            add("x1", BATCH, 100, out=1),
            add("l1", LS, 16, out=3),
            step(l1=16, a1=1),
            wait(2.1),
            # One is held back too long; the other one rode.
            begin(x1=64),
            suspend(ran=0.11),
            nested(l1=1, a1=1),
            nested(l1=1, a1=1),
            nested(a1=1),
            resume(),
            end(),
            step(x1=36),
            idle(),
        ],
    ),
    "a suspended step resumes when it has waited long enough, and waits again": (
        {},
        [
            add("b1", BE, 64, out=1),
            begin(b1=64),
            suspend(),
            add("l1", LS, 16, out=6),
            nested(l1=16),
            nested(l1=1),
            wait(2.1),
            resume(),
            suspend(ran=0.11),
            nested(l1=1),
            nested(l1=1),
            wait(2.1),
            resume(),
            end(took=0.11),
            steps(2, l1=1),
            idle(),
        ],
    ),
    "three classes nest two deep, innermost first out": (
        {"classes": THREE_CLASSES},
        [
            add("x", BATCH, 64, out=1),
            begin(x=64),
            suspend(),
            add("a", AGENT, 100, out=2),
            nest(a=64),
            suspend(),
            add("y", BATCH, 16, out=1),
            add("l", LS, 16, out=2),
            nested(l=16),
            nested(l=1),
            resume(),
            end(),
            nested(a=36),
            nested(a=1),
            resume(),
            end(),
            step(y=16),
            idle(),
        ],
    ),
    "a step that may not be suspended is not": (
        {"policy": "step"},
        [
            add("b1", BE, 100, out=1),
            begin(b1=64),
            lambda bare: _assert_not_suspendable(bare),
            add("l1", LS, 16, out=1),
            end(),
            step(l1=16),
            step(b1=36),
            idle(),
        ],
    ),
}


def _assert_not_suspendable(bare: BareScheduler) -> None:
    assert not bare.step_in_flight.suspendable
    assert bare.step_in_flight.lane == 0


PROMPT = list(range(500, 700))

PREFIXES: dict[str, Scenario] = {
    "a nested request computes itself what the suspended step has half written": (
        {},
        [
            add("b1", BE, PROMPT[:64], out=1),
            begin(b1=64),
            suspend(),
            add("l1", LS, PROMPT[:64], out=2),
            nested(l1=64),
            nested(l1=1),
            resume(),
            end(),
            idle(),
        ],
    ),
    "it hits what earlier steps have written": (
        {},
        [
            add("b1", BE, PROMPT[:128], out=1),
            step(b1=64),
            begin(b1=64),
            suspend(),
            add("l1", LS, PROMPT[:100], out=1),
            nested(l1=36),
            resume(),
            end(),
            idle(),
        ],
    ),
    "a block that an earlier step began and the suspended one fills is half written": (
        {"tokens": 40},
        [
            add("b1", BE, PROMPT[:80], out=1),
            step(b1=40),
            begin(b1=40),
            suspend(),
            # 32 tokens in two blocks are complete; the third block holds 8 written tokens.
            add("l1", LS, PROMPT[:64], out=1),
            nested(l1=32),
            resume(),
            end(),
            idle(),
        ],
    ),
    "it hits all of it once the step is complete": (
        {},
        [
            add("b1", BE, PROMPT[:64], out=1),
            begin(b1=64),
            suspend(),
            resume(),
            end(),
            add("l1", LS, PROMPT[:65], out=1),
            step(l1=1),
            idle(),
        ],
    ),
    "nested requests hit what other nested requests have written": (
        {},
        [
            add("b1", BE, 64, out=1),
            begin(b1=64),
            suspend(),
            add("l1", LS, PROMPT[:64], out=1),
            nested(l1=64),
            add("l2", LS, PROMPT[:65], out=1),
            nested(l2=1),
            resume(),
            end(),
            idle(),
        ],
    ),
    "two deep, blocks of both suspended steps are refused": (
        {"classes": THREE_CLASSES},
        [
            add("x", BATCH, PROMPT[:48], out=1),
            begin(x=48),
            suspend(),
            add("a", AGENT, PROMPT[100:148], out=1),
            nest(a=48),
            suspend(),
            add("l1", LS, PROMPT[:48], out=1),
            nested(l1=48),
            add("l2", LS, PROMPT[100:148], out=1),
            nested(l2=48),
            resume(),
            end(),
            resume(),
            end(),
            idle(),
        ],
    ),
}

ALL = SLOTS | BUDGET | RIDERS | NESTING | PREFIXES


@pytest.mark.parametrize("name", ALL)
def test_step_table(make: Make, name: str) -> None:
    arguments, events = ALL[name]
    play(make(**({"ride_slowdown": 1} | arguments)), events)


def test_steps_in_flight_have_a_lane_each(make: Make) -> None:
    bare = make(classes=THREE_CLASSES)
    for name, priority in (("x", BATCH), ("a", AGENT), ("l", LS)):
        bare.add(name, priority, 16)
        bare.begin()
        lanes = [one.lane for one in bare.scheduler.flight]
        assert len(set(lanes)) == len(lanes)
        if priority != LS:
            bare.suspend()
    # Nothing can be more urgent than the most urgent class.
    assert not bare.step_in_flight.suspendable


def test_steps_are_numbered_apart(make: Make) -> None:
    """The arrival flag names a step; two steps of one number could be taken for each other."""
    bare = make()
    bare.add("b", BE, 16, out=3)
    numbers = []
    for _ in range(3):
        bare.begin()
        numbers.append(bare.step_in_flight.number)
        bare.end()
    assert len(set(numbers)) == 3 and 0 not in numbers


def test_held_back_work_gets_a_bounded_slice(make: Make) -> None:
    bare = make(classes=[{"name": "a", "max_priority": 0}, {"name": "b", "slice_ms": 70}])
    play(bare, [add("b1", BE, 64), add("l1", LS, 16, out=9), step(l1=16), wait(2.1), begin(b1=64)])
    assert bare.step_in_flight.suspendable
    assert bare.step_in_flight.budget == pytest.approx(0.07 * 2.1 / 2)


def test_the_cost_of_decodes_is_learnt_from_the_steps_themselves(make: Make) -> None:
    """Decodes here cost the same however many there are, so in the end all of them may ride."""
    bare = make(seqs=8, ride_slowdown=1.25)
    for i in range(4):
        bare.add(f"b{i}", BE, 16, out=200)
    bare.begin()
    bare.end(took=0.05)
    for _ in range(10):
        bare.begin()
        bare.end(took=0.02)
    bare.add("l", LS, 16, out=40)
    seen = []
    for _ in range(40):
        seen.append(len(bare.begin()))
        bare.end(took=0.02)
    assert max(seen) == 5


def test_view_leaves_out_the_suspended_step(make: Make) -> None:
    bare = make()
    play(bare, [add("b1", BE, 100), begin(b1=64), suspend(), add("b2", BE, 16), add("l1", LS, 16)])
    view = bare.scheduler.view(bare.clock.now + 0.5)
    urgent, rest = view.classes
    assert (urgent.waiting, urgent.prefilling, urgent.decoding) == (1, 0, 0)
    assert (rest.waiting, rest.prefilling, rest.decoding) == (1, 0, 0)
    (suspended,) = view.suspended
    assert (suspended.level, suspended.yield_point) == (1, 1)
    assert suspended.starved == pytest.approx(0.5)
    assert suspended.ran == pytest.approx(0.05)
    assert view.ready == (urgent,)


def test_view_shows_all_suspended_steps_outermost_first(make: Make) -> None:
    bare = make(classes=THREE_CLASSES)
    play(bare, [add("x", BATCH, 64), begin(x=64), suspend(), add("a", AGENT, 64), nest(a=64)])
    bare.suspend(ran=0.3)
    outer, inner = bare.scheduler.view(bare.clock.now + 0.1).suspended
    assert (outer.level, inner.level) == (2, 1)
    assert (outer.starved, inner.starved) == pytest.approx((0.4, 0.1))


def test_an_answer_that_cannot_be_carried_out_names_the_policy(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vllm_qllm.policy import Resume, Run

    bare = make()
    bare.add("b1", BE, 64)
    for answer in (Resume(), Run(2), Run(-1), None):
        monkeypatch.setattr(bare.scheduler.priority_policy, "plan", lambda view, a=answer: a)
        with pytest.raises(RuntimeError, match="strict"):
            bare.scheduler.schedule()
    monkeypatch.undo()
    bare.begin()
    bare.suspend()
    monkeypatch.setattr(bare.scheduler.priority_policy, "plan", lambda view: Run(1))
    with pytest.raises(RuntimeError, match="strict"):
        bare.decide()
