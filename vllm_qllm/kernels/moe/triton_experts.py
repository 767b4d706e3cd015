# SPDX-License-Identifier: Apache-2.0
"""vLLM's experts of an unquantised MoE layer on CUDA, by kernels that can be stopped.

Import it only where Triton can compile for a device, or interprets.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
import vllm.model_executor.layers.fused_moe.modular_kernel as mk
from vllm.model_executor.layers.fused_moe.activation import MoEActivation
from vllm.model_executor.layers.fused_moe.topk_weight_and_reduce import TopKWeightAndReduceNoOP
from vllm.platforms import current_platform

from vllm_qllm.kernels.moe.triton_work import ACTIVATIONS, Stop, Work


class Interruption(Protocol):
    """How the experts learn that somebody waits, and let them go first."""

    def stop(self) -> Stop | None:
        """The flag to watch and the running step's number; None if it is not to be suspended.

        None with several ranks, too: one may be done before it sees the flag and another not,
        so that only the other would call :meth:`suspend`.
        """

    def suspend(self) -> None:
        """Run what is more urgent. The flag must not name the step any more on return."""


class ResumableTritonExperts(mk.FusedMoEExpertsModular):
    """Experts that end at the next tile when the flag names their step, and go on afterwards.

    ``interruption`` is set by whoever installs checkpoints; None, and in CUDA graphs, no flag is
    looked at and nothing waits for the device.
    """

    interruption: Interruption | None = None

    @staticmethod
    def activation_format() -> mk.FusedMoEActivationFormat:
        return mk.FusedMoEActivationFormat.Standard

    @staticmethod
    def is_supported_config(
        cls: type[mk.FusedMoEExperts],
        moe_config: Any,
        weight_key: Any,
        activation_key: Any,
        activation_format: mk.FusedMoEActivationFormat,
    ) -> tuple[bool, str | None]:
        supported, reason = mk.FusedMoEExperts.is_supported_config(
            cls, moe_config, weight_key, activation_key, activation_format
        )
        if not supported:
            return supported, reason
        if moe_config.in_dtype not in (torch.bfloat16, torch.float16):
            return False, f"kernel does not support {moe_config.in_dtype}"
        if moe_config.swiglu_limit is not None:
            return False, "kernel does not clamp gate and up"
        return True, None

    @staticmethod
    def _supports_current_device() -> bool:
        return bool(current_platform.is_cuda() and current_platform.has_device_capability(80))

    @staticmethod
    def _supports_no_act_and_mul() -> bool:
        return False

    @staticmethod
    def _supports_activation(activation: MoEActivation) -> bool:
        return activation.value in ACTIVATIONS

    @staticmethod
    def _supports_quant_scheme(weight_key: Any, activation_key: Any) -> bool:
        return weight_key is None and activation_key is None

    @staticmethod
    def _supports_parallel_config(moe_parallel_config: Any) -> bool:
        # Ranks that wait for each other in a collective would have to stop at the same tile.
        return not moe_parallel_config.use_all2all_kernels

    def finalize_weight_and_reduce_impl(self) -> mk.TopKWeightAndReduce:
        return TopKWeightAndReduceNoOP()

    def workspace_shapes(
        self, M: int, N: int, K: int, *others: Any, **more: Any
    ) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """No workspace: vLLM's belongs to all steps, a suspended step needs its own."""
        return (0,), (0,), (M, K)

    def apply(
        self,
        output: torch.Tensor,
        hidden_states: torch.Tensor,
        w1: torch.Tensor,
        w2: torch.Tensor,
        topk_weights: torch.Tensor,
        topk_ids: torch.Tensor,
        activation: MoEActivation,
        global_num_experts: int,
        expert_map: torch.Tensor | None,
        a1q_scale: torch.Tensor | None,
        a2_scale: torch.Tensor | None,
        workspace13: torch.Tensor,
        workspace2: torch.Tensor,
        expert_tokens_meta: mk.ExpertTokensMetadata | None,
        apply_router_weight_on_input: bool,
    ) -> None:
        """Write the weighted sum of the experts into ``output``; may suspend the step meanwhile."""
        stop = self._stop(hidden_states)
        work = Work(
            hidden_states,
            w1,
            w2,
            # vLLM has applied them to the input already, if at all.
            None if apply_router_weight_on_input else topk_weights,
            topk_ids,
            activation.value,
            self.w1_bias,
            self.w2_bias,
            expert_map,
            # ``output`` is part of vLLM's workspace: a nested step would write into it.
            output if stop is None else None,
        )
        work.launch(stop)
        if stop is None:
            return
        # The layers that follow may be enqueued only when this one is complete.
        while not work.is_done():
            assert self.interruption is not None
            self.interruption.suspend()
            work.launch(self.interruption.stop())
        output.copy_(work.output)

    def _stop(self, hidden: torch.Tensor) -> Stop | None:
        if self.interruption is None:
            return None
        if hidden.is_cuda and torch.cuda.is_current_stream_capturing():
            return None
        return self.interruption.stop()
