# SPDX-License-Identifier: Apache-2.0
"""Clients that go away while steps are suspended: nothing of a suspended step may go with them."""

from __future__ import annotations

import pytest
from vllm.v1.request import RequestStatus

from tests.engine.bare_scheduler import (
    AGENT,
    BATCH,
    BE,
    LS,
    THREE_CLASSES,
    Make,
    abort,
    add,
    begin,
    end,
    expect,
    idle,
    nest,
    nested,
    play,
    resume,
    step,
    suspend,
)


def test_a_request_of_a_suspended_step_stays_until_the_step_completes(make: Make) -> None:
    bare = make()
    play(bare, [add("b1", BE, 64, out=9), begin(b1=64), suspend()])
    held = bare.blocks_of("b1")
    bare.abort("b1")
    assert bare.blocks_of("b1") == held
    assert bare.requests["b1"].status == RequestStatus.RUNNING
    play(bare, [add("l1", LS, 64, out=2), nest(l1=64)])
    assert not set(bare.blocks_of("l1")) & set(held)
    # Workers drop a request's state when they hear that it finished.
    assert not bare.outputs[-1].finished_req_ids
    play(bare, [end(), nested(l1=1), resume()])
    assert "b1" in bare.scheduler.requests
    bare.end()
    assert bare.requests["b1"].status == RequestStatus.FINISHED_ABORTED
    # It gets no token after its abort.
    assert bare.requests["b1"].num_output_tokens == 0
    bare.assert_idle()
    play(bare, [add("b2", BE, 16, out=1), step(b2=16)])
    assert bare.gone == {"l1", "b1"}


def test_an_abort_that_comes_twice_is_one(make: Make) -> None:
    bare = make()
    play(bare, [add("b1", BE, 64), begin(b1=64), suspend(), abort("b1"), abort("b1"), resume()])
    play(bare, [end(), idle()])


def test_others_of_the_suspended_step_go_on(make: Make) -> None:
    play(
        make(),
        [
            add("b1", BE, 32, out=3),
            add("b2", BE, 32, out=3),
            begin(b1=32, b2=32),
            suspend(),
            abort("b1"),
            resume(),
            end(),
            step(b2=1),
            step(b2=1),
            expect(finished={"b2"}),
            idle(),
        ],
    )


def test_an_abort_of_nested_work_takes_effect_at_once(make: Make) -> None:
    play(
        make(),
        [
            add("b1", BE, 64, out=1),
            begin(b1=64),
            suspend(),
            add("l1", LS, 16, out=9),
            nested(l1=16),
            expect(free=64 - 4 - 1),
            abort("l1"),
            expect(free=64 - 4),
            resume(),
            end(),
            idle(),
        ],
    )


def test_an_abort_during_the_nested_step_itself(make: Make) -> None:
    """vLLM applies it between the step's end and its results."""
    bare = make()
    play(bare, [add("b1", BE, 64, out=1), begin(b1=64), suspend(), add("l1", LS, 16, out=9)])
    play(bare, [nest(l1=16), abort("l1")])
    play(bare, [end(), resume(), end(), idle()])
    assert bare.requests["l1"].num_output_tokens == 0


def test_an_abort_of_work_that_waits(make: Make) -> None:
    play(
        make(),
        [
            add("b1", BE, 64, out=1),
            begin(b1=64),
            suspend(),
            add("b2", BE, 16),
            add("l1", LS, 16),
            abort("b2", "l1"),
            resume(),
            end(),
            idle(),
        ],
    )


def test_an_abort_of_a_held_back_request_frees_its_blocks(make: Make) -> None:
    play(
        make(ride_slowdown=1),
        [
            add("b1", BE, 32),
            step(b1=32),
            add("l1", LS, 16, out=2),
            step(l1=16),
            abort("b1"),
            expect(free=63),
            step(l1=1),
            idle(),
        ],
    )


def test_an_abort_of_a_preempted_request(make: Make) -> None:
    play(
        make(blocks=4),
        [
            add("b1", BE, 63),
            step(b1=63),
            add("l1", LS, 16, out=1),
            step(l1=16),
            expect(preemptions={"b1": 1}),
            abort("b1"),
            idle(),
        ],
    )


def test_each_of_two_suspended_steps_keeps_its_own(make: Make) -> None:
    play(
        make(classes=THREE_CLASSES),
        [
            add("x", BATCH, 64, out=9),
            begin(x=64),
            suspend(),
            add("a", AGENT, 32, out=9),
            nest(a=32),
            suspend(),
            abort("x", "a"),
            expect(running={"x", "a"}, free=64 - 4 - 2),
            resume(),
            end(),
            expect(running={"x"}, free=64 - 4),
            resume(),
            end(),
            idle(),
        ],
    )


@pytest.mark.parametrize("ids", [None, ["b1", "b2", "l1"], {"b1", "b2", "l1"}])
def test_abort_of_everything(make: Make, ids: list[str] | set[str] | None) -> None:
    """Lists, sets and None, which means everything."""
    bare = make()
    play(bare, [add("b1", BE, 64, out=9), begin(b1=64), suspend(), add("b2", BE, 16)])
    play(bare, [add("l1", LS, 16, out=9), nested(l1=16)])
    bare.scheduler.finish_requests(ids, RequestStatus.FINISHED_ABORTED)
    play(bare, [expect(running={"b1"}), resume(), end(), idle()])


def test_an_abort_of_a_finished_request_does_nothing(make: Make) -> None:
    play(
        make(),
        [
            add("l1", LS, 16, out=1),
            step(l1=16),
            add("b1", BE, 64, out=1),
            begin(b1=64),
            suspend(),
            abort("l1", "nobody"),
            resume(),
            end(),
            idle(),
        ],
    )
