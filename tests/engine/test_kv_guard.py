# SPDX-License-Identifier: Apache-2.0
"""Whose KV blocks are taken, when, and how many. Blocks hold 16 tokens, a step 256."""

from __future__ import annotations

import pytest

from tests.engine.bare_scheduler import (
    AGENT,
    BATCH,
    BE,
    LS,
    THREE_CLASSES,
    Make,
    Scenario,
    abort,
    add,
    any_step,
    begin,
    end,
    expect,
    give_up,
    idle,
    nested,
    plan,
    play,
    resume,
    resume_anyway,
    step,
    steps,
    suspend,
)

PREFIX = list(range(64))

# Best-effort requests of 48 tokens that have just taken a fourth block each.
TWO = [
    add("b1", BE, 48, out=8),
    add("b2", BE, 48, out=8),
    step(b1=48, b2=48),
    step(b1=1, b2=1),
]
THREE = [
    *(add(f"b{i}", BE, 48, out=8) for i in range(3)),
    step(b0=48, b1=48, b2=48),
    step(b0=1, b1=1, b2=1),
]

TAKEN: dict[str, Scenario] = {
    "no block is taken while enough are free": (
        {"blocks": 10},
        [
            *TWO,
            add("l1", LS, 32, out=1),
            step(l1=32),
            expect(preemptions={}, running={"b1", "b2"}),
        ],
    ),
    "the latest loses its blocks, and is first of its class to come back": (
        {"blocks": 8},
        [
            *TWO,
            add("l1", LS, 32, out=1),
            step(l1=32),
            expect(preemptions={"b2": 1}, running={"b1"}, free=4),
            add("b3", BE, 16, out=1),
            # Two of b2's blocks still hold what they held: 50 - 32 tokens are computed again.
            step(b1=1, b2=18),
            expect(preemptions={"b2": 1}, running={"b1", "b2"}, free=0),
            steps(5, b1=1, b2=1),
            expect(finished={"l1", "b1", "b2"}),
            step(b3=16),
            idle(),
        ],
    ),
    "one victim is enough when its blocks are": (
        {"blocks": 12},
        [
            *THREE,
            add("l1", LS, 16, out=1),
            step(l1=16),
            expect(preemptions={"b2": 1}, running={"b0", "b1"}),
        ],
    ),
    "as many as it takes, and no more": (
        {"blocks": 12},
        [
            *THREE,
            add("l1", LS, 100, out=1),
            step(l1=100),
            expect(preemptions={"b1": 1, "b2": 1}, running={"b0"}),
        ],
    ),
    "a decode takes blocks too": (
        {"blocks": 9},
        [
            *TWO,
            add("l1", LS, 16, out=3),
            step(l1=16),
            expect(free=0),
            step(l1=1),
            expect(preemptions={"b2": 1}, running={"b1", "l1"}),
        ],
    ),
    "the least urgent class loses first, even if it came first": (
        {"blocks": 8, "classes": THREE_CLASSES},
        [
            add("x", BATCH, 64, out=9),
            step(x=64),
            add("a", AGENT, 63, out=9),
            step(a=63),
            add("l1", LS, 16, out=1),
            step(l1=16),
            expect(preemptions={"x": 1}, running={"a"}),
        ],
    ),
    "a class takes from less urgent classes only": (
        {"blocks": 8, "classes": THREE_CLASSES},
        [
            add("l1", LS, 63, out=9),
            step(l1=63),
            add("x", BATCH, 63, out=9),
            plan(2),
            step(x=63),
            add("a", AGENT, 32, out=1),
            plan(1),
            step(a=32),
            expect(preemptions={"x": 1}, running={"l1"}),
        ],
    ),
    "nearly finished work keeps its blocks while others have some": (
        {"blocks": 8, "progress_cap": 0.5},
        [
            add("b1", BE, 48, out=100),
            add("b2", BE, 48, out=4),
            step(b1=48, b2=48),
            step(b1=1, b2=1),
            add("l1", LS, 16, out=1),
            step(l1=16),
            expect(preemptions={"b1": 1}, running={"b2"}),
        ],
    ),
    "a request that lost its blocks often enough keeps them": (
        {"blocks": 8, "max_preemptions": 1},
        [
            *TWO,
            add("l1", LS, 32, out=1),
            step(l1=32),
            expect(preemptions={"b2": 1}),
            step(b1=1, b2=18),
            add("l2", LS, 32, out=1),
            step(l2=32),
            expect(preemptions={"b1": 1, "b2": 1}, running={"b2"}),
        ],
    ),
    "when nothing may be taken, urgent work waits and the others go on": (
        {"blocks": 8, "max_preemptions": 0},
        [
            *TWO,
            add("l1", LS, 32, out=1),
            steps(6, b1=1, b2=1),
            step(l1=32),
            expect(preemptions={}),
            idle(),
        ],
    ),
    "the others go on, the most urgent of them first": (
        {"blocks": 8, "max_preemptions": 0, "classes": THREE_CLASSES},
        [
            add("x", BATCH, 48, out=3),
            step(x=48),
            add("a", AGENT, 48, out=3),
            step(a=48),
            add("l1", LS, 100, out=1),
            steps(2, a=1),
            steps(2, x=1),
            step(l1=100),
            expect(preemptions={}),
            idle(),
        ],
    ),
    "nothing is taken when what the request needs itself is most of it": (
        {"blocks": 8},
        [
            add("l0", LS, 40, out=8),
            step(l0=40),
            add("b1", BE, PREFIX, out=9),
            *[plan(1), any_step()] * 2,
            expect(free=0),
            # It hits four of b1's five blocks and needs two more.
            add("l1", LS, [*PREFIX, *range(100, 132)], out=1),
            step(l0=1),
            expect(preemptions={}),
        ],
    ),
    "blocks are taken of those that would ride, too": (
        {"blocks": 8, "ride_slowdown": 100},
        [
            *TWO,
            add("l1", LS, 32, out=1),
            step(l1=32),
            expect(preemptions={"b2": 1}, running={"b1"}),
        ],
    ),
    "those that need no block ride although none is left": (
        {"blocks": 9, "ride_slowdown": 100},
        [
            *TWO,
            add("l1", LS, 15, out=1),
            begin(l1=15, b1=1, b2=1),
            expect(free=0, preemptions={}),
        ],
    ),
    "equals never take from each other, whichever arrived first": (
        {"blocks": 4},
        [
            add("b1", 3, 48, out=8, arrival=100.0),
            step(b1=48),
            add("b2", 3, 48, out=1, arrival=-100.0),
            add("b3", 1, 48, out=1, arrival=-200.0),
            steps(7, b1=1),
            expect(preemptions={}),
            step(b3=48),
            step(b2=48),
            idle(),
        ],
    ),
    "preempted work comes back before its equals, whichever arrived first": (
        {"blocks": 8, "seqs": 2},
        [
            add("b1", BE, 48, out=8, arrival=100.0),
            add("b2", BE, 48, out=8, arrival=200.0),
            step(b1=48, b2=48),
            step(b1=1, b2=1),
            # It reaches the engine now, although its server stamped it earlier.
            add("b3", BE, 48, out=1, arrival=50.0),
            add("l1", LS, 32, out=1),
            step(l1=32),
            expect(preemptions={"b2": 1}),
            step(b1=1, b2=18),
        ],
    ),
}

BELOW: dict[str, Scenario] = {
    "a nested request takes blocks of parked requests": (
        {"blocks": 12, "classes": THREE_CLASSES},
        [
            add("a", AGENT, 63, out=3),
            step(a=63),
            add("x", BATCH, 100, out=1),
            plan(2),
            begin(x=100),
            suspend(),
            expect(free=1),
            add("l1", LS, 32, out=1),
            nested(l1=32),
            expect(preemptions={"a": 1}, running={"x"}),
            # Three of its blocks, 48 tokens, still hold what they held.
            nested(a=16),
            nested(a=1),
            resume(),
            end(),
            idle(),
        ],
    ),
    "a suspended step is given up for its blocks": (
        {"blocks": 8},
        [
            add("b1", BE, 100, out=2),
            begin(b1=100),
            suspend(),
            add("l1", LS, 32, out=1),
            nested(),
            expect(preemptions={}, running={"b1"}),
            give_up(),
            expect(preemptions={}, running={"b1"}, free=1),
            step(l1=32),
            expect(preemptions={"b1": 1}),
            # Nothing of it was computed.
            step(b1=100),
            step(b1=1),
            idle(),
        ],
    ),
    "one whose blocks are not all needed keeps the others, and what they hold": (
        {"blocks": 15},
        [
            add("b1", BE, 100, out=3),
            add("b2", BE, 100, out=3),
            step(b1=100, b2=100),
            begin(b1=1, b2=1),
            suspend(),
            add("l1", LS, 32, out=1),
            nested(),
            give_up(),
            step(l1=32),
            expect(preemptions={"b2": 1}, running={"b1"}, free=8),
            # Six of b2's blocks still hold what they held.
            step(b1=1, b2=5),
            step(b1=1, b2=1),
            idle(),
        ],
    ),
    "it is not given up for what its blocks would not suffice for": (
        {"blocks": 12},
        [
            add("l0", LS, 80, out=3),
            step(l0=80),
            add("b1", BE, 60, out=2),
            plan(1),
            begin(b1=60),
            suspend(),
            add("l1", LS, 128, out=1),
            # Three are free, the suspended step holds four.
            nested(l0=1),
            expect(give_up=False, preemptions={}),
        ],
    ),
    "it is given up once what was there before it is not enough": (
        {"blocks": 12, "classes": THREE_CLASSES},
        [
            add("a", AGENT, 63, out=3),
            step(a=63),
            add("x", BATCH, 100, out=1),
            plan(2),
            begin(x=100),
            suspend(),
            # One block is free, a holds four, the suspended step seven.
            add("l1", LS, 96, out=1),
            nested(),
            expect(preemptions={}, running={"a", "x"}),
            give_up(),
            # The least urgent loses first, and that is enough.
            step(l1=96),
            expect(preemptions={"x": 1}, running={"a"}),
        ],
    ),
    "what it hit of a step that was given up is computed again": (
        {"blocks": 12},
        [
            add("b1", BE, PREFIX, out=2),
            add("b2", BE, [*PREFIX, *range(100, 116)], out=2),
            begin(b1=64, b2=16),
            suspend(),
            add("l1", LS, 120, out=1),
            nested(),
            abort("b1"),
            give_up(),
            expect(preemptions={"b2": 1}),
            step(l1=120),
            step(b2=80),
            step(b2=1),
            idle(),
        ],
    ),
    "requests that lost often enough keep their step": (
        {"blocks": 8, "max_preemptions": 1},
        [
            add("b1", BE, 100, out=2),
            begin(b1=100),
            suspend(),
            add("l1", LS, 32, out=1),
            nested(),
            give_up(),
            step(l1=32),
            expect(preemptions={"b1": 1}),
            begin(b1=100),
            suspend(),
            add("l2", LS, 32, out=1),
            nested(),
            expect(give_up=False, preemptions={"b1": 1}),
            resume_anyway(),
            end(),
            # Nor does it lose its blocks between steps.
            step(b1=1),
            step(l2=32),
            idle(),
        ],
    ),
}

# A tenth of 21 blocks, vLLM's own one included, is two.
RESERVE: dict[str, Scenario] = {
    "the reserve is there for urgent work": (
        {},
        [
            add("b1", BE, 160, out=9),
            add("b2", BE, 100, out=9),
            add("b3", BE, 16, out=9),
            step(b1=160, b2=96),
            # b3 would take one of the last two.
            step(b1=1, b2=4),
            expect(free=2, preemptions={}),
            add("l1", LS, 32, out=1),
            step(l1=32),
            expect(preemptions={}),
        ],
    ),
    "who needs no block goes on although urgent work has the reserve": (
        {},
        [
            add("b1", BE, 145, out=9),
            add("b2", BE, 115, out=9),
            step(b1=145, b2=111),
            step(b1=1, b2=4),
            expect(free=2),
            add("l1", LS, 30, out=9),
            step(l1=30),
            expect(free=0),
            plan(1),
            step(b1=1, b2=1),
            expect(preemptions={}),
        ],
    ),
    "the only request may use all": (
        {},
        [add("b1", BE, 319, out=2), step(b1=256), step(b1=63), step(b1=1), idle()],
    ),
    "a class between takes from less urgent ones, and leaves the reserve": (
        {"classes": THREE_CLASSES},
        [
            add("x1", BATCH, 127, out=50),
            add("x2", BATCH, 127, out=50),
            step(x1=127, x2=127),
            # Four blocks are free; two of them are the reserve.
            add("a", AGENT, 48, out=1),
            step(a=48),
            expect(preemptions={"x2": 1}, running={"x1"}),
        ],
    ),
    "nothing is taken when what remains would not leave the reserve": (
        {"classes": THREE_CLASSES},
        [
            add("l1", LS, 159, out=50),
            add("x", BATCH, 47, out=50),
            step(l1=159),
            plan(2),
            step(x=47),
            # Seven blocks are free and three are x's; nine need a reserve of two beside them.
            add("a", AGENT, 143, out=1),
            plan(1),
            any_step(),
            expect(preemptions={}),
        ],
    ),
    "urgent work uses all": (
        {},
        [add("l1", LS, 160, out=1), add("l2", LS, 160, out=1), step(l1=160, l2=96), step(l2=64)],
    ),
    "what could not end without the reserve is not begun, to be thrown away at the end": (
        {},
        [
            add("l1", LS, 15, out=8),
            step(l1=15),
            # 18 blocks for its prompt: all but the reserve is one less.
            add("b1", BE, 280, out=1),
            *[plan(1), any_step()] * 4,
            expect(preemptions={}),
            *[any_step()] * 8,
            expect(preemptions={}, finished={"l1", "b1"}),
        ],
    ),
}

ALL = (
    {name: ({"reserved_kv": 0.0} | a, e) for name, (a, e) in (TAKEN | BELOW).items()}
    | {name: ({"reserved_kv": 0.1, "blocks": 20} | a, e) for name, (a, e) in RESERVE.items()}
)  # fmt: skip


@pytest.mark.parametrize("name", ALL)
def test_who_gives_blocks_to_whom(make: Make, name: str) -> None:
    arguments, events = ALL[name]
    play(make(**({"tokens": 256, "ride_slowdown": 1} | arguments)), events)


def test_workers_hear_of_every_request_that_lost_its_blocks(make: Make) -> None:
    """A worker keeps a request's block table until it is told; the blocks are others' by then."""
    bare = make(blocks=8, tokens=256)
    play(bare, [*TWO, add("l1", LS, 32, out=1)])
    bare.begin()
    assert bare.outputs[-1].preempted_req_ids == {"b2"}


def test_what_unused_outputs_announce_is_announced(make: Make) -> None:
    """Neither of the two more urgent classes fits; the step that is used is the third class's."""
    bare = make(blocks=8, tokens=256, classes=THREE_CLASSES)
    for name, out in (("x1", 9), ("x2", 9), ("x3", 1)):
        bare.add(name, BATCH, 16, out=out)
    play(bare, [step(x1=16, x2=16, x3=16), add("l1", LS, 129), add("a1", AGENT, 129)])
    scheduler = bare.scheduler
    scheduler.reset_prefix_cache(reset_running_requests=True)
    scheduler.encoder_cache_manager.freed = ["image"]
    play(bare, [begin(x1=17, x2=17)])
    output = bare.outputs[-1]
    assert output.finished_req_ids == {"x3"}
    assert output.preempted_req_ids == {"x1", "x2"}
    assert output.free_encoder_mm_hashes == ["image"]
    assert len(scheduler.flight) == 1
    # Once is enough.
    play(bare, [end(), begin(x1=1, x2=1)])
    output = bare.outputs[-1]
    assert not output.finished_req_ids and not output.preempted_req_ids
    assert not output.free_encoder_mm_hashes


def test_two_that_outgrow_the_cache_do_not_take_turns(make: Make) -> None:
    """Both need more than half of it; whoever gives way does so once, not once a step."""
    bare = make(blocks=8, tokens=256)
    bare.add("b1", BE, 48, out=40)
    bare.add("b2", BE, 48, out=40)
    while bare.scheduler.requests:
        bare.begin()
        bare.end()
    assert sum(bare.preemptions().values()) <= 1
    bare.assert_idle()


def test_what_fits_only_with_the_reserve_is_let_in_by_age(make: Make) -> None:
    """Beside one or two urgent requests at all times, which hold one or two blocks of twenty."""
    bare = make(blocks=20, tokens=64, reserved_kv=0.1)
    began = bare.clock.monotonic()
    bare.add("b", BE, 280, out=1)  # 18 blocks, and two are the reserve
    for number in range(600):
        if number % 3 == 0:  # two of them overlap
            bare.add(f"l{number}", LS, 8, out=5)
        bare.begin()
        bare.end(took=0.05)
        if "b" in bare.finished:
            break
    assert bare.finished.get("b") == "length"
    assert bare.clock.monotonic() - began < 10
