# SPDX-License-Identifier: Apache-2.0
"""Experts in tiles of rows give the same bits as in one piece, and stop before every tile."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from vllm.platforms import current_platform

from vllm_qllm.kernels.moe import row_tiles

HIDDEN, INTER, EXPERTS, TOP = 64, 96, 4, 2


@pytest.fixture(scope="module")
def stock() -> Any:
    """vLLM's own kernel on experts of random weights, as ``apply`` of an experts class."""
    current_platform.import_kernels()
    from vllm._custom_ops import cpu_fused_moe, cpu_prepack_moe_weight

    made = torch.Generator().manual_seed(0)
    w13 = torch.randn(EXPERTS, 2 * INTER, HIDDEN, generator=made) / HIDDEN**0.5
    w2 = torch.randn(EXPERTS, HIDDEN, INTER, generator=made) / INTER**0.5
    packed = [cpu_prepack_moe_weight(w, "vec") for w in (w13, w2)]

    def apply(
        output: Any, hidden_states: Any, w1: Any, w2: Any, topk_weights: Any, topk_ids: Any
    ) -> None:
        cpu_fused_moe(
            output, hidden_states, w1, w2, None, None, topk_weights, topk_ids, "silu", "vec", False
        )

    return functools.partial(apply, w1=packed[0], w2=packed[1])


@pytest.mark.parametrize("rows", [1, 7, 64, 65, 200])
def test_same_bits(stock: Any, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(row_tiles, "ROWS", 64)
    made = torch.Generator().manual_seed(rows)
    hidden = torch.randn(rows, HIDDEN, generator=made)
    weights, ids = torch.rand(rows, EXPERTS, generator=made).topk(TOP)
    inputs = {"hidden_states": hidden, "topk_weights": weights, "topk_ids": ids.int()}
    whole, tiled = torch.empty_like(hidden), torch.empty_like(hidden)
    stops: list[int] = []

    def yield_point() -> None:
        stops.append(len(stops))
        # A nested step uses the same experts.
        stock(output=torch.empty_like(hidden), **inputs)

    stock(output=whole, **inputs)
    in_tiles = row_tiles.in_row_tiles(stock.func, yield_point)
    in_tiles(output=tiled, **inputs, **stock.keywords)
    assert torch.equal(whole, tiled)
    assert whole.abs().max() > 0
    assert len(stops) == -(-rows // 64)
