# SPDX-License-Identifier: Apache-2.0
"""The custom op by which a model reaches the experts of a layer that can stop.

It is all of the MoE layer that a compiled graph does not see into.
"""

import functools

import torch
from vllm.model_executor.layers.fused_moe.runner.moe_runner import get_layer_from_name
from vllm.utils.torch_utils import (
    LayerNameType,
    _resolve_layer_name,
    direct_register_custom_op,
)


def _experts(
    output: torch.Tensor,
    hidden_states: torch.Tensor,
    w1: torch.Tensor,
    w2: torch.Tensor,
    topk_weights: torch.Tensor,
    topk_ids: torch.Tensor,
    activation: str,
    apply_router_weight_on_input: bool,
    layer_name: LayerNameType,
) -> None:
    layer = get_layer_from_name(_resolve_layer_name(layer_name))
    layer.routed_experts.quant_method.moe_kernel.fused_experts.compute(
        output,
        hidden_states,
        w1,
        w2,
        topk_weights,
        topk_ids,
        activation,
        apply_router_weight_on_input,
    )


def _fake(*arguments: object) -> None:
    """Shapes of what it returns: nothing."""


@functools.cache
def register() -> torch.library.Library:
    """Define ``torch.ops.vllm_qllm.experts``, once a process."""
    library = torch.library.Library("vllm_qllm", "FRAGMENT")
    direct_register_custom_op("experts", _experts, ["output"], _fake, library)
    return library
