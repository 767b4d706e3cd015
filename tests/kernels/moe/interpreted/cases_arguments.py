# SPDX-License-Identifier: Apache-2.0
"""What the kernels cannot compute is refused in words."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.kernels.moe.interpreted.layer import make_layer
from vllm_qllm.kernels.moe.triton_work import Work


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation": "relu"}, "'relu' is none of"),
        ({"w2": torch.zeros(8, 31, 16)}, r"w2 has shape \(8, 31, 16\), not \(8, 32, 16\)"),
        ({"topk_weights": torch.zeros(5, 3)}, r"topk_weights has shape \(5, 3\), not \(5, 2\)"),
        ({"hidden": torch.zeros(5, 32)}, "float32, neither"),
        ({"w13": torch.zeros(8, 32, 32, dtype=torch.bfloat16)}, "not of one type"),
        ({"w13": torch.zeros(8, 32, 32).half().transpose(1, 2)}, "w13 is not contiguous"),
    ],
)
def test_what_it_cannot_do_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Work(**make_layer(5, 2, 8) | change)


def test_offsets_of_64_bits_are_refused() -> None:
    tall = torch.empty(2**18, 2**13, dtype=torch.float16, device="meta")
    layer = make_layer(5, 1, 8) | {"hidden": tall, "topk_weights": None}
    layer["topk_ids"] = torch.empty(2**18, 1, dtype=torch.int32, device="meta")
    layer["w13"], layer["w2"] = (tall.new_empty(shape) for shape in ((1, 4, 2**13), (1, 2**13, 2)))
    with pytest.raises(ValueError, match=r"262144 x 8192 .* need offsets of 64 bits"):
        Work(**layer)
