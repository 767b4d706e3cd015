# SPDX-License-Identifier: Apache-2.0
"""What a layer of experts keeps on itself belongs to the step: a nested one finds nothing there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from vllm_qllm.execution.agreement import SLOTS
from vllm_qllm.execution.protocol import Place
from vllm_qllm.execution.yield_points import install


def layer_of_experts(**experts: Any) -> Any:
    """As much of vLLM's layer as yield points look at, with something of a step everywhere."""
    fused = SimpleNamespace(apply=lambda: "done", **experts)
    method = SimpleNamespace(moe_kernel=SimpleNamespace(fused_experts=fused))
    return SimpleNamespace(
        routed_experts=SimpleNamespace(quant_method=method),
        shared_experts=SimpleNamespace(_output=["shared", None]),
        router=SimpleNamespace(_zero_expert_output="zero"),
    )


def contents(layer: Any) -> list[Any]:
    experts = layer.routed_experts.quant_method.moe_kernel.fused_experts
    return [
        layer.shared_experts._output,
        layer.router._zero_expert_output,
        experts._lora_context.original_hidden_states,
    ]


@pytest.mark.parametrize("by", ["a yield point", "a kernel that stopped"])
def test_a_nested_step_finds_the_layer_empty(by: str) -> None:
    context = SimpleNamespace(original_hidden_states="hidden")
    more: dict[str, Any] = {"_lora_context": context}
    if by == "a kernel that stopped":
        more["interruption"] = None
    layer = layer_of_experts(**more)
    experts = layer.routed_experts.quant_method.moe_kernel.fused_experts
    seen: list[list[Any]] = []

    def nested(place: Place | None = None) -> None:
        seen.append(contents(layer))
        layer.shared_experts._output = ["of the nested step", None]
        layer.router._zero_expert_output = "of the nested step"
        context.original_hidden_states = None

    attention = SimpleNamespace(impl=SimpleNamespace(forward=lambda: None))
    install(
        {"model.layers.0.attn": attention, "model.layers.0.mlp": layer},
        nested if by == "a yield point" else lambda place: None,
        experts=True,
        interruption=lambda place: SimpleNamespace(suspend=nested),
    )
    if by == "a yield point":
        assert experts.apply() == "done"
        assert not hasattr(experts, "interruption"), "vLLM's own kernel cannot be stopped"
    else:
        experts.interruption.suspend()
    assert seen == [[[None, None], None, None]]
    assert contents(layer) == [["shared", None], "zero", "hidden"]


def test_experts_divide_a_call_no_finer_than_ranks_can_tell() -> None:
    layer = layer_of_experts(yield_point=None, max_stretches=None)
    attention = SimpleNamespace(impl=SimpleNamespace(forward=lambda: None))
    layers = {"model.layers.0.attn": attention, "model.layers.0.mlp": layer}
    install(layers, lambda place: None, experts=True)
    assert layer.routed_experts.quant_method.moe_kernel.fused_experts.max_stretches == SLOTS // 2
