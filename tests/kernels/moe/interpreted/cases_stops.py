# SPDX-License-Identifier: Apache-2.0
"""Stopped anywhere and launched again, with others' work between: the same bits, and no more."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels.moe.interpreted.layer import assert_right, make_layer
from tests.kernels.moe.interpreted.trace import NUMBER, Trace
from vllm_qllm.kernels.moe.tile_shape import shapes_for
from vllm_qllm.kernels.moe.triton_work import Stop, Work

layers = st.builds(
    make_layer,
    tokens=st.sampled_from([1, 3, 20, 90]),
    top_k=st.integers(1, 8),
    experts=st.sampled_from([8, 20]),
    H=st.sampled_from([32, 136]),
    I=st.sampled_from([16, 136]),
    bias=st.booleans(),
    mapped=st.booleans(),
    popular=st.sampled_from([8, None]),
)


def queue_ends(work: Work, layer: dict[str, Any]) -> list[int]:
    """Tiles in each phase of a layer."""
    shapes = shapes_for(*layer["topk_ids"].shape, layer["w13"].shape[0], 9)
    rows = int(work._map.tiles)
    H, I = layer["w2"].shape[1:]  # noqa: E741
    down = rows * -(-H // shapes.down.columns)
    tail = min(down, work._tail)
    return [
        rows * -(-I // shapes.gate_up.columns),
        down - tail,
        tail,
        -(-len(layer["hidden"]) // shapes.tokens),
    ]


@settings(deadline=None, max_examples=10)
@given(
    layers,
    st.sampled_from([0, 2, None]),
    st.lists(st.booleans(), max_size=60),
    st.randoms(use_true_random=False),
)
def test_stopped_anywhere_gives_the_same_bits(
    trace: Trace, layer: dict[str, Any], tail: int | None, answers: list[bool], random: Any
) -> None:
    whole = Work(**layer)
    trace.claims = trace.stores = 0
    whole.launch()
    assert whole.is_done()
    assert_right(layer, whole.output)
    stores = trace.stores

    other_layer = make_layer(5, 2, 8, seed=1)
    other = Work(**other_layer)
    work = Work(**layer, tail=tail)
    ends = queue_ends(work, layer)
    work.output.fill_(torch.nan)
    trace.stores, trace.answers = 0, iter(answers)
    stop = Stop(trace.flag, NUMBER)
    launches = 0
    while launches <= len(answers) + 1:  # every launch but the last meets a True
        work.launch(stop)
        launches += 1
        claimed = work.claimed()
        assert work.was_stopped() != work.is_done()
        if work.is_done():
            break
        # A phase begins when the one before is complete.
        assert claimed[1] == 0 or claimed[0] >= ends[0]
        assert claimed[2:] == [0, 0], "the host was told to wait, and the device went on"
        if random.random() < 0.3:  # a nested step, of the same layer's size or of another
            seen, trace.answers, done = trace.answers, iter(()), trace.stores
            nested = Work(**layer) if random.random() < 0.5 else other
            nested.launch()
            if nested is not other:
                assert torch.equal(nested.output, whole.output)
            trace.answers, trace.stores = seen, done
    assert work.is_done()
    assert (launches > 1) <= any(answers)
    assert torch.equal(work.output, whole.output)
    assert trace.stores == stores, "a tile was computed twice"
    # Launching what is done changes nothing.
    work.launch(stop)
    assert trace.stores == stores
    assert work.is_done()


def test_a_raised_flag_lets_nothing_be_claimed(trace: Trace) -> None:
    layer = make_layer(20, 2, 8)
    work = Work(**layer)
    trace.answers, trace.claims, trace.stores = iter([True] * 9), 0, 0
    work.launch(Stop(trace.flag, NUMBER))
    assert (trace.claims, trace.stores) == (0, 0)
    assert work.claimed() == [0, 0, 0, 0]
    assert work.was_stopped() and not work.is_done()


def test_every_position_is_one_to_stop_at(trace: Trace) -> None:
    layer = make_layer(3, 2, 8, H=128, I=136)
    whole = Work(**layer)
    whole.launch()
    work = Work(**layer, tail=2)
    ends = queue_ends(work, layer)
    trace.stores = 0
    for launch in range(1, 1 + sum(ends[:2])):
        assert not work.is_done()
        trace.answers = trace.after(1)
        work.launch(Stop(trace.flag, NUMBER))
        assert trace.stores - launch == (sum(ends[2:]) if launch == sum(ends[:2]) else 0)
    trace.answers = iter(())
    assert work.is_done()
    assert ends == [3 * 3, 3 * 2 - 2, 2, 3]  # row tiles times columns, twice, and tokens
    assert torch.equal(work.output, whole.output)


def test_without_a_flag_none_is_looked_at(trace: Trace) -> None:
    trace.looks = 0
    Work(**make_layer(5, 2, 8)).launch()
    assert trace.looks == 0
