# SPDX-License-Identifier: Apache-2.0
"""Whatever the layer: it is computed as by the reference."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.kernels.moe.interpreted.layer import assert_right, make_layer
from tests.kernels.moe.interpreted.trace import Trace
from vllm_qllm.kernels.moe.tile_shape import FEW, MANY, SOME, shapes_for
from vllm_qllm.kernels.moe.triton_work import Work


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
