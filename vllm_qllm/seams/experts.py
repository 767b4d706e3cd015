# SPDX-License-Identifier: Apache-2.0
"""Where a layer of experts is built."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vllm_qllm.seams.seam import Seam


def _select_forward(original: Callable[..., Any]) -> Callable[..., Any]:
    def select_forward(self: Any) -> Any:
        import torch
        from vllm.config.vllm import get_current_vllm_config
        from vllm.platforms import current_platform

        from vllm_qllm.config import carried

        data = carried(get_current_vllm_config())
        if data is None or data["yield_points"] != "expert" or not current_platform.is_cpu():
            return original(self)
        # On the CPU vLLM traces through the layer, where no Python is left to stop at but that
        # of ops. Experts of this package are one themselves.
        from vllm_qllm.kernels.moe.experts import PreemptibleExperts

        if getattr(self.routed_experts.quant_method, "experts_cls", None) is PreemptibleExperts:
            return original(self)
        ops = torch.ops.vllm
        return ops.moe_forward if self._shared_experts is None else ops.moe_forward_shared

    return select_forward


def _backend_to_kernel_cls(original: Callable[..., Any]) -> Callable[..., Any]:
    def backend_to_kernel_cls(backend: Any) -> Any:
        from vllm.config.vllm import get_current_vllm_config_or_none

        from vllm_qllm.config import carried

        found = original(backend)
        vllm_config = get_current_vllm_config_or_none()
        data = carried(vllm_config)
        if data is None or data["yield_points"] != "expert":
            return found
        # vLLM takes the first that supports the layer.
        if backend.name == "CPU":
            from vllm_qllm.kernels.moe.experts import PreemptibleExperts

            return [PreemptibleExperts, *found]
        # With LoRA vLLM takes the first without asking what it supports.
        if backend.name == "TRITON" and vllm_config.lora_config is None:
            from vllm_qllm.kernels.moe.triton_experts import ResumableTritonExperts

            return [ResumableTritonExperts, *found]
        return found

    return backend_to_kernel_cls


EXPERTS = (
    Seam(
        "vllm.model_executor.layers.fused_moe.runner.moe_runner",
        "MoERunner",
        "_select_forward",
        ("self",),
        "yield points among the experts of a layer in compiled mode",
        _select_forward,
    ),
    Seam(
        "vllm.model_executor.layers.fused_moe.oracle.unquantized",
        "",
        "backend_to_kernel_cls",
        ("backend",),
        "experts that can stop between two pieces of their work",
        _backend_to_kernel_cls,
    ),
)
