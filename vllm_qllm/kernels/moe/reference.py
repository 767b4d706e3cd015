# SPDX-License-Identifier: Apache-2.0
"""What an MoE layer computes, in plain torch and float32: the specification of every kernel."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
}


def gated(both: torch.Tensor, activation: str) -> torch.Tensor:
    """[n, 2 I] -> [n, I]. Gate and up are the two halves; ``swigluoai`` has them alternate."""
    if activation == "swigluoai":
        gate, up = both[:, ::2].clamp(max=7.0), both[:, 1::2].clamp(-7.0, 7.0)
        return gate * torch.sigmoid(1.702 * gate) * (up + 1)
    gate, up = both.chunk(2, dim=-1)
    return ACTIVATIONS[activation](gate) * up


def moe(
    hidden: torch.Tensor,
    w13: torch.Tensor,
    w2: torch.Tensor,
    topk_weights: torch.Tensor,
    topk_ids: torch.Tensor,
    activation: str,
    bias13: torch.Tensor | None = None,
    bias2: torch.Tensor | None = None,
    expert_map: torch.Tensor | None = None,
    apply_router_weight_on_input: bool = False,
) -> torch.Tensor:
    """Sum, over the experts of each token, of ``weight * w2 @ (activation(gate) * up)``.

    Args:
        hidden: [tokens, H] floats of any width, as all tensors of weights.
        w13: [experts, 2 I, H], gate above up, or as :func:`gated` says.
        w2: [experts, H, I].
        topk_weights: [tokens, top_k].
        topk_ids: [tokens, top_k] integers; negative ones name no expert.
        activation: a key of :data:`ACTIVATIONS`, or ``swigluoai``.
        bias13: [experts, 2 I], or None.
        bias2: [experts, H], or None.
        expert_map: [all experts] integers: the row in ``w13`` and ``w2`` of each expert that is
            named in ``topk_ids``, or -1 if it is elsewhere; None if all are here.
        apply_router_weight_on_input: the weights have been applied to ``hidden`` already, as
            vLLM's prepare step does then; the sum is one without weights.

    Returns:
        [tokens, H] float32; zeros for a token none of whose experts is here.
    """
    output = torch.zeros(hidden.shape, dtype=torch.float32, device=hidden.device)
    ids = topk_ids.long()
    if expert_map is not None:
        ids = torch.where(ids >= 0, expert_map.long()[ids.clamp(min=0)], -1)
    for expert in range(w13.shape[0]):
        token, choice = torch.nonzero(ids == expert, as_tuple=True)
        if token.numel() == 0:
            continue
        both = hidden[token].float() @ w13[expert].float().T
        if bias13 is not None:
            both += bias13[expert].float()
        result = gated(both, activation) @ w2[expert].float().T
        if bias2 is not None:
            result += bias2[expert].float()
        if not apply_router_weight_on_input:
            result *= topk_weights[token, choice, None].float()
        output.index_add_(0, token, result)
    return output
