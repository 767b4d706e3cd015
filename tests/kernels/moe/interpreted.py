# SPDX-License-Identifier: Apache-2.0
"""The GPU kernels in Triton's interpreter. Run by ``test_triton_interpreted.py``, in a process of
its own: Triton reads ``TRITON_INTERPRET`` when a kernel is defined.

Programs run one after another here, so what is shown is that tiles are neither lost nor computed
twice wherever programs stop, and that results are right; not how programs race.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from triton import language as tl
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

from vllm_qllm.kernels.moe import reference
from vllm_qllm.kernels.moe.tile_shape import FEW, MANY, SOME, shapes_for
from vllm_qllm.kernels.moe.triton_work import Stop, Work

assert os.environ.get("TRITON_INTERPRET") == "1", "run test_triton_interpreted.py instead"
NUMBER = 2**40 + 5  # of the step, too large for 32 bits


@dataclass
class Trace:
    """What the kernels did, and what they find in the flag.

    Attributes:
        flag: the word that they look at.
        answers: what each look at it finds, in order: whether it names the step; then nothing.
        claims: one for each tile claimed, or end of a queue found.
        stores: one for each tile stored.
    """

    flag: torch.Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.int64))
    answers: Iterator[bool] = field(default_factory=lambda: iter(()))
    looks: int = 0
    claims: int = 0
    stores: int = 0

    def after(self, tiles: int) -> Iterator[bool]:
        """Answers that name the step once that many tiles have been stored."""
        end = self.stores + tiles
        while True:
            yield self.stores >= end


@pytest.fixture(scope="module")
def trace() -> Iterator[Trace]:
    """Counts what the interpreter does, and writes the flag just before each look at it."""
    trace = Trace()
    load, store = InterpreterBuilder.create_masked_load, InterpreterBuilder.create_masked_store
    claim, dot = InterpreterBuilder.create_atomic_rmw, InterpreterBuilder.create_dot

    def traced_load(self: Any, *args: Any) -> Any:
        if args[-1]:  # volatile
            trace.looks += 1
            trace.flag[0] = NUMBER if next(trace.answers, False) else NUMBER - 2**32
        return load(self, *args)

    def traced_store(self: Any, *args: Any) -> Any:
        trace.stores += 1
        return store(self, *args)

    def traced_claim(self: Any, *args: Any) -> Any:
        trace.claims += 1
        return claim(self, *args)

    def widened_dot(self: Any, a: TensorHandle, b: TensorHandle, *others: Any) -> Any:
        # The interpreter holds bfloat16 as integers and would multiply those.
        if a.dtype.scalar == tl.bfloat16:
            a, b = (self.cast_impl(x, tl.float32) for x in (a, b))
        return dot(self, a, b, *others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InterpreterBuilder, "create_masked_load", traced_load)
        patch.setattr(InterpreterBuilder, "create_masked_store", traced_store)
        patch.setattr(InterpreterBuilder, "create_atomic_rmw", traced_claim)
        patch.setattr(InterpreterBuilder, "create_dot", widened_dot)
        yield trace


def make_layer(
    tokens: int,
    top_k: int,
    experts: int,
    H: int = 32,
    I: int = 16,  # noqa: E741
    dtype: torch.dtype = torch.float16,
    bias: bool = False,
    mapped: bool = False,
    popular: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Arguments of the reference and of ``Work``; ids name at most ``popular`` experts."""
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int, scale: float = 1.0) -> torch.Tensor:
        return (torch.randn(*shape, generator=generator) * scale).to(dtype)

    everywhere = 2 * experts if mapped else experts
    scores = torch.rand(tokens, everywhere, generator=generator)
    scores[:, popular:] -= 1
    expert_map = None
    if mapped:
        expert_map = torch.full((everywhere,), -1, dtype=torch.int32)
        here = torch.randperm(everywhere, generator=generator)[:experts]
        expert_map[here] = torch.arange(experts, dtype=torch.int32)
    return {
        "hidden": randn(tokens, H),
        "w13": randn(experts, 2 * I, H, scale=H**-0.5),
        "w2": randn(experts, H, I, scale=I**-0.5),
        "topk_weights": torch.rand(tokens, top_k, generator=generator),
        "topk_ids": scores.topk(top_k, dim=1).indices.int(),
        "activation": "silu",
        "bias13": randn(experts, 2 * I) if bias else None,
        "bias2": randn(experts, H) if bias else None,
        "expert_map": expert_map,
    }


def assert_right(layer: dict[str, Any], output: torch.Tensor) -> None:
    # Activations between the phases have the narrow type; sums of the reference are wide.
    tolerance = 2e-2 if output.dtype == torch.bfloat16 else 4e-3
    expected = reference.moe(**layer)
    torch.testing.assert_close(output.float(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("activation", ["silu", "gelu", "gelu_tanh"])
@pytest.mark.parametrize(("bias", "mapped"), [(False, False), (True, False), (True, True)])
def test_equals_the_reference(
    trace: Trace, dtype: torch.dtype, activation: str, bias: bool, mapped: bool
) -> None:
    layer = make_layer(9, 3, 8, dtype=dtype, bias=bias, mapped=mapped)
    layer["activation"] = activation
    work = Work(**layer)
    work.launch()
    assert work.is_done()
    assert_right(layer, work.output)


@pytest.mark.parametrize(
    ("tokens", "top_k", "experts", "popular", "shapes"),
    [
        (1, 1, 8, None, FEW),
        (1, 8, 256, None, FEW),
        (40, 8, 256, 9, FEW),
        (130, 2, 8, 3, SOME),
        (70, 5, 8, 5, SOME),
        (420, 2, 8, None, MANY),
        (390, 3, 9, 4, MANY),
        (1500, 1, 8, 3, MANY),
    ],
)
def test_sizes(
    trace: Trace, tokens: int, top_k: int, experts: int, popular: int | None, shapes: Any
) -> None:
    assert shapes_for(tokens, top_k, experts, 9) is shapes
    layer = make_layer(tokens, top_k, experts, popular=popular, bias=True)
    work = Work(**layer)
    work.launch()
    assert_right(layer, work.output)


@pytest.mark.parametrize(
    ("tokens", "H", "I"),
    [(3, 256, 192), (3, 136, 200), (60, 128, 128), (60, 200, 136), (250, 160, 136)],
)
def test_tiles_of_several_columns_and_depths(trace: Trace, H: int, I: int, tokens: int) -> None:  # noqa: E741
    layer = make_layer(tokens, 2, 4, H=H, I=I)
    work = Work(**layer)
    work.launch()
    assert_right(layer, work.output)


def test_no_weights_where_they_were_applied_before(trace: Trace) -> None:
    layer = make_layer(5, 1, 8)
    work = Work(**layer | {"topk_weights": None})
    work.launch()
    assert_right(layer | {"apply_router_weight_on_input": True}, work.output)


def test_tokens_without_a_local_expert_are_zero(trace: Trace) -> None:
    layer = make_layer(6, 2, 8)
    layer["topk_ids"][1:5] = -1
    output = torch.full_like(layer["hidden"], torch.nan)
    work = Work(**layer, output=output)
    work.launch()
    assert not output[1:5].any()
    assert_right(layer, output)
    layer["topk_ids"][:] = -1
    work = Work(**layer, output=output)
    work.launch()
    assert work.is_done()
    assert not output.any()


def test_no_tokens(trace: Trace) -> None:
    work = Work(**make_layer(0, 2, 8))
    work.launch()
    assert work.is_done()


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
    return [
        rows * -(-I // shapes.gate_up.columns),
        rows * -(-H // shapes.down.columns),
        -(-len(layer["hidden"]) // shapes.tokens),
    ]


@settings(deadline=None, max_examples=10)
@given(layers, st.lists(st.booleans(), max_size=60), st.randoms(use_true_random=False))
def test_stopped_anywhere_gives_the_same_bits(
    trace: Trace, layer: dict[str, Any], answers: list[bool], random: Any
) -> None:
    whole = Work(**layer)
    trace.claims = trace.stores = 0
    whole.launch()
    assert whole.is_done()
    assert_right(layer, whole.output)
    stores, ends = trace.stores, queue_ends(whole, layer)

    other_layer = make_layer(5, 2, 8, seed=1)
    other = Work(**other_layer)
    work = Work(**layer)
    work.output.fill_(torch.nan)
    trace.stores, trace.answers = 0, iter(answers)
    stop = Stop(trace.flag, NUMBER)
    launches = 0
    while launches <= len(answers) + 1:  # every launch but the last meets a True
        work.launch(stop)
        launches += 1
        claimed = work.claimed()
        if work.is_done():
            break
        # A phase begins when the one before is complete.
        assert claimed[1] == 0 or claimed[0] >= ends[0]
        assert claimed[2] == 0 or claimed[1] >= ends[1]
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
    assert work.claimed() == [0, 0, 0]
    assert not work.is_done()


def test_every_position_is_one_to_stop_at(trace: Trace) -> None:
    layer = make_layer(3, 2, 8, H=128, I=136)
    whole = Work(**layer)
    whole.launch()
    work = Work(**layer)
    trace.stores = 0
    for launch in range(1, 1 + sum(queue_ends(whole, layer))):
        assert not work.is_done()
        trace.answers = trace.after(1)
        work.launch(Stop(trace.flag, NUMBER))
        assert trace.stores == launch
    trace.answers = iter(())
    assert work.is_done()
    assert launch == 3 * 3 + 3 * 2 + 3  # row tiles times columns, twice, and tokens
    assert torch.equal(work.output, whole.output)


def test_without_a_flag_none_is_looked_at(trace: Trace) -> None:
    trace.looks = 0
    Work(**make_layer(5, 2, 8)).launch()
    assert trace.looks == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation": "relu"}, "'relu' is none of"),
        ({"w2": torch.zeros(8, 31, 16)}, r"w2 has shape \(8, 31, 16\), not \(8, 32, 16\)"),
        ({"topk_weights": torch.zeros(5, 3)}, r"topk_weights has shape \(5, 3\), not \(5, 2\)"),
        ({"hidden": torch.zeros(5, 32)}, "float32, neither"),
        ({"w13": torch.zeros(8, 32, 32, dtype=torch.bfloat16)}, "not of one type"),
        ({"w13": torch.zeros(8, 32, 32).half().transpose(1, 2)}, "w13 is not contiguous"),
    ],
)
def test_what_it_cannot_do_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Work(**make_layer(5, 2, 8) | change)


def test_offsets_of_64_bits_are_refused() -> None:
    tall = torch.empty(2**18, 2**13, dtype=torch.float16, device="meta")
    layer = make_layer(5, 1, 8) | {"hidden": tall, "topk_weights": None}
    layer["topk_ids"] = torch.empty(2**18, 1, dtype=torch.int32, device="meta")
    layer["w13"], layer["w2"] = (tall.new_empty(shape) for shape in ((1, 4, 2**13), (1, 2**13, 2)))
    with pytest.raises(ValueError, match=r"262144 x 8192 .* need offsets of 64 bits"):
        Work(**layer)


class Suspensions:
    """Raises the flag at drawn looks; ``nested`` runs at each suspension."""

    def __init__(self, trace: Trace, nested: Callable[[], None]) -> None:
        self.count = 0
        self._trace, self._nested = trace, nested

    def stop(self) -> Stop:
        return Stop(self._trace.flag, NUMBER)

    def suspend(self) -> None:
        self.count += 1
        self._nested()


def test_the_experts_of_vllm_share_nothing_with_a_nested_step(trace: Trace) -> None:
    from vllm.model_executor.layers.fused_moe.activation import MoEActivation
    from vllm.model_executor.layers.fused_moe.config import (
        FUSED_MOE_UNQUANTIZED_CONFIG,
        FusedMoEConfig,
        FusedMoEParallelConfig,
        RoutingMethodType,
    )

    from vllm_qllm.kernels.moe.triton_experts import ResumableTritonExperts

    config = FusedMoEConfig(
        num_experts=8,
        experts_per_token=2,
        hidden_dim=32,
        intermediate_size=16,
        num_local_experts=8,
        num_logical_experts=8,
        activation=MoEActivation.GELU,
        device="cpu",
        routing_method=RoutingMethodType.Renormalize,
        moe_parallel_config=FusedMoEParallelConfig.make_no_parallel(),
        in_dtype=torch.float16,
    )
    experts = ResumableTritonExperts(config, FUSED_MOE_UNQUANTIZED_CONFIG)
    # One output for all steps, as in vLLM's workspace.
    workspace = torch.full((50 * 32,), torch.nan, dtype=torch.float16)

    def apply(layer: dict[str, Any], on_input: bool = False) -> torch.Tensor:
        tokens, H = layer["hidden"].shape
        shapes = experts.workspace_shapes(tokens, 32, H, 2, 8, 8, None, MoEActivation.GELU)
        assert shapes == ((0,), (0,), (tokens, H))
        output = workspace[: tokens * H].view(tokens, H)
        experts.apply(
            output=output,
            hidden_states=layer["hidden"],
            w1=layer["w13"],
            w2=layer["w2"],
            topk_weights=layer["topk_weights"],
            topk_ids=layer["topk_ids"],
            activation=MoEActivation.GELU,
            global_num_experts=8,
            expert_map=None,
            a1q_scale=None,
            a2_scale=None,
            workspace13=workspace[:0],
            workspace2=workspace[:0],
            expert_tokens_meta=None,
            apply_router_weight_on_input=on_input,
        )
        return output.clone()

    outer, inner = make_layer(50, 2, 8), make_layer(7, 2, 8, seed=1)
    outer["activation"] = inner["activation"] = "gelu"
    alone = apply(outer), apply(inner)
    assert_right(outer, alone[0])
    nested: list[torch.Tensor] = []

    def nest() -> None:
        trace.answers = iter(())
        nested.append(apply(inner))
        trace.answers = trace.after(4)

    suspensions = Suspensions(trace, nest)
    experts.interruption = suspensions
    trace.answers = trace.after(4)
    assert torch.equal(apply(outer), alone[0])
    assert suspensions.count == len(nested) >= 5
    assert all(torch.equal(output, alone[1]) for output in nested)
    trace.answers = iter(())
    # Weights that were applied to the input are not applied again.
    output = apply(outer, on_input=True)
    assert_right(outer | {"apply_router_weight_on_input": True}, output)
