# SPDX-License-Identifier: Apache-2.0
"""Which experts vLLM is offered, and which of a layer's sizes are long."""

from __future__ import annotations

from enum import Enum
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vllm_qllm.config import PriorityConfig
from vllm_qllm.kernels.moe import triton_experts
from vllm_qllm.seams.experts import EXPERTS

Backend = Enum("Backend", "TRITON FLASHINFER_CUTLASS")


def offered(
    backend: Backend, policy: bool, monkeypatch: pytest.MonkeyPatch, **config: Any
) -> list[str]:
    """Names of the classes that vLLM chooses from."""
    data = {"priority": PriorityConfig().to_dict()} if policy else {}
    current = SimpleNamespace(additional_config=data, **({"lora_config": None} | config))
    monkeypatch.setattr(
        "vllm.config.vllm.get_current_vllm_config_or_none", lambda: current, raising=True
    )
    (seam,) = (s for s in EXPERTS if s.name == "backend_to_kernel_cls")
    return [c.__name__ for c in seam.wrap(lambda backend: [dict])(backend)]


def test_triton_experts_come_first_where_there_is_a_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    both = ["ResumableTritonExperts", "dict"]
    assert offered(Backend.TRITON, True, monkeypatch) == both
    assert offered(Backend.TRITON, False, monkeypatch) == ["dict"]
    assert offered(Backend.FLASHINFER_CUTLASS, True, monkeypatch) == ["dict"]


def test_not_with_lora_where_vllm_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    assert offered(Backend.TRITON, True, monkeypatch, lora_config=object()) == ["dict"]


@pytest.mark.parametrize(
    ("tokens", "top_k", "H", "I", "is_long"),
    [
        (1, 2, 4096, 14336, False),
        (1024, 2, 4096, 14336, False),
        (2048, 2, 4096, 14336, True),  # Mixtral-8x7B
        (8192, 8, 2048, 768, False),  # Qwen3-30B-A3B
        (16384, 8, 2048, 768, True),
        (2**20, 2, 4096, 14336, False),  # more than our kernel can address
    ],
)
def test_long_layers_are_those_of_milliseconds(
    tokens: int,
    top_k: int,
    H: int,
    I: int,  # noqa: E741
    is_long: bool,
) -> None:
    ids = torch.empty(tokens, top_k, device="meta")
    assert triton_experts._is_long(ids, torch.empty(8, H, I, device="meta")) == is_long
