# SPDX-License-Identifier: Apache-2.0
"""The kernels as vLLM's class for experts: suspended in a layer, with a nested step on top."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from vllm.model_executor.layers.fused_moe.activation import MoEActivation
from vllm.model_executor.layers.fused_moe.config import (
    FUSED_MOE_UNQUANTIZED_CONFIG,
    FusedMoEConfig,
    FusedMoEParallelConfig,
    RoutingMethodType,
)

from tests.kernels.moe.interpreted.layer import assert_right, make_layer
from tests.kernels.moe.interpreted.trace import NUMBER, Trace
from vllm_qllm.kernels.moe import triton_experts, triton_work
from vllm_qllm.kernels.moe.triton_experts import ResumableTritonExperts
from vllm_qllm.kernels.moe.triton_work import Stop


class Suspensions:
    """Raises the flag at drawn looks; ``nested`` runs at each suspension."""

    def __init__(self, trace: Trace, nested: Callable[[], None]) -> None:
        self.count = 0
        self._trace, self._nested = trace, nested

    def stop(self) -> Stop:
        return Stop(self._trace.flag, NUMBER)

    def mark(self) -> None:
        """The interpreter is never ahead."""

    wait = mark

    def suspend(self) -> None:
        self.count += 1
        self._nested()


def test_the_experts_of_vllm_share_nothing_with_a_nested_step(
    trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triton_experts, "LONG_SECONDS", 0.0)
    monkeypatch.setattr(triton_work, "TAIL_SECONDS", 1e-9)
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
        trace.answers = trace.after(2)

    suspensions = Suspensions(trace, nest)
    experts.interruption = suspensions
    trace.answers = trace.after(2)
    assert torch.equal(apply(outer), alone[0])
    assert suspensions.count == len(nested) >= 3
    assert all(torch.equal(output, alone[1]) for output in nested)
    trace.answers = iter(())
    # Weights that were applied to the input are not applied again.
    output = apply(outer, on_input=True)
    assert_right(outer | {"apply_router_weight_on_input": True}, output)
