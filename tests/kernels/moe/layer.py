# SPDX-License-Identifier: Apache-2.0
"""A random MoE layer, and inputs for it, for tests of kernels on the CPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from vllm_qllm.kernels.moe import cpu
from vllm_qllm.kernels.moe.reference import moe


@dataclass
class Layer:
    """Everything that `cpu.Work` takes, packed and as `reference.moe` takes it."""

    hidden: torch.Tensor
    w13: torch.Tensor
    w2: torch.Tensor
    bias13: torch.Tensor | None
    bias2: torch.Tensor | None
    weights: torch.Tensor
    ids: torch.Tensor
    activation: str

    def __post_init__(self) -> None:
        self.packed = cpu.pack(self.w13), cpu.pack(self.w2)

    def work(self, **options: Any) -> tuple[torch.Tensor, cpu.Work]:
        """A call that is not begun, and the tensor that will hold its result."""
        output = torch.full_like(self.hidden, torch.nan)
        biases = self.bias13, self.bias2
        router = self.weights, self.ids
        return output, cpu.Work(
            output, self.hidden, *self.packed, *biases, *router, self.activation, **options
        )

    def result(self, **options: Any) -> torch.Tensor:
        output, work = self.work(**options)
        assert work.run()
        assert work.position == work.items
        return output

    def expected(self, unweighted: bool = False) -> torch.Tensor:
        ids = self.ids.where(self.ids < len(self.w13), -1)
        router = self.weights, ids, self.activation
        return moe(
            self.hidden, self.w13, self.w2, *router, self.bias13, self.bias2, None, unweighted
        )


def layer(
    tokens: int,
    hidden: int = 64,
    inter: int = 96,
    experts: int = 8,
    topk: int = 2,
    activation: str = "silu",
    *,
    biases: bool = False,
    elsewhere: int = 0,
    favourite: float = 0.0,
    ids: torch.dtype = torch.int32,
    seed: int = 0,
) -> Layer:
    """`elsewhere` ids name experts of other ranks; `favourite` draws tokens to few experts."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int, scale: float = 1.0) -> torch.Tensor:
        return (torch.randn(*shape, generator=random) * scale).bfloat16()

    logits = torch.randn(tokens, experts + elsewhere, generator=random)
    logits += favourite * torch.arange(experts + elsewhere)
    weights, chosen = torch.topk(logits.softmax(-1), topk)
    # Experts of other ranks are -1, or beyond the last.
    chosen = torch.where(chosen == experts, -1, chosen)
    return Layer(
        normal(tokens, hidden),
        normal(experts, 2 * inter, hidden, scale=1.5 * hidden**-0.5),
        normal(experts, hidden, inter, scale=inter**-0.5),
        normal(experts, 2 * inter) if biases else None,
        normal(experts, hidden) if biases else None,
        weights,
        chosen.to(ids),
        activation,
    )


def error(output: torch.Tensor, expected: torch.Tensor) -> float:
    """Size of the difference, relative to the size of what is expected."""
    difference = (output.float() - expected).norm()
    return float(difference / expected.norm().clamp(min=1e-9))
