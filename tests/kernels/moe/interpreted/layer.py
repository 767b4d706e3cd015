# SPDX-License-Identifier: Apache-2.0
"""A random MoE layer as ``triton_work.Work`` takes it, and what must come of it."""

from __future__ import annotations

from typing import Any

import torch

from vllm_qllm.kernels.moe import reference


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
