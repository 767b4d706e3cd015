# SPDX-License-Identifier: Apache-2.0
"""How many yield points a call of the experts meets: by sizes alone, few for few tokens."""

from __future__ import annotations

import pytest
import torch

from vllm_qllm.execution.agreement import SLOTS
from vllm_qllm.kernels.moe import cpu_library
from vllm_qllm.kernels.moe.experts import FLOPS, stretches


def weights(experts: int, inter: int, hidden: int) -> torch.Tensor:
    return torch.empty(experts, 2 * inter, hidden, dtype=torch.bfloat16, device="meta")


@pytest.mark.parametrize(
    ("kernel", "tokens", "at_least", "at_most"),
    [
        ("amx", 1, 1, 1),
        ("amx", 64, 1, 4),
        ("amx", 2048, 10, 20),
        ("avx512", 1, 1, 1),
        ("avx512", 64, 1, 4),
        ("avx512", 2048, 50, 100),
    ],
)
def test_they_follow_the_work(kernel: str, tokens: int, at_least: int, at_most: int) -> None:
    assert at_least <= stretches(tokens, 2, weights(8, 1792, 1024), kernel) <= at_most


def test_every_kernel_has_a_speed() -> None:
    assert FLOPS.keys() == cpu_library.KERNELS.keys()


@pytest.mark.parametrize("kernel", cpu_library.KERNELS)
def test_ranks_are_never_too_far_apart(kernel: str) -> None:
    assert stretches(16_384, 2, weights(8, 14_336 // 2, 4096), kernel, SLOTS // 2) == SLOTS // 2
