# SPDX-License-Identifier: Apache-2.0
"""How many checkpoints a call of the experts meets: by sizes alone, few for few tokens."""

from __future__ import annotations

import pytest
import torch

from vllm_qllm.execution.agreement import SLOTS
from vllm_qllm.kernels.moe.experts import stretches


def weights(experts: int, inter: int, hidden: int) -> torch.Tensor:
    return torch.empty(experts, 2 * inter, hidden, dtype=torch.bfloat16, device="meta")


@pytest.mark.parametrize(("tokens", "at_least", "at_most"), [(1, 1, 1), (64, 1, 4), (2048, 10, 20)])
def test_they_follow_the_work(tokens: int, at_least: int, at_most: int) -> None:
    assert at_least <= stretches(tokens, 2, weights(8, 1792, 1024)) <= at_most


def test_ranks_are_never_too_far_apart() -> None:
    assert stretches(16_384, 2, weights(8, 14_336 // 2, 4096)) == SLOTS // 2
