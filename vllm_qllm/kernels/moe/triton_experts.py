# SPDX-License-Identifier: Apache-2.0
"""vLLM's experts of an unquantised MoE layer on CUDA, by kernels that can be stopped.

Import it only where Triton can compile for a device, or interprets.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
import vllm.model_executor.layers.fused_moe.modular_kernel as mk
from vllm.model_executor.layers.fused_moe.activation import MoEActivation
from vllm.model_executor.layers.fused_moe.experts.triton_moe import TritonExperts
from vllm.platforms import current_platform

from vllm_qllm.kernels.moe.triton_work import ACTIVATIONS, Stop, Work

# A layer that takes longer than this, roughly, is worth stopping inside.
LONG_SECONDS = 2e-3
# What a data-centre GPU does, roughly; it decides which layers those are and nothing else.
FLOPS = 5e14


class Interruption(Protocol):
    """How the experts learn that somebody waits, and let them go first."""

    def stop(self) -> Stop | None:
        """What a launch is to look at; None if its step is not to be suspended.

        None with several ranks, too: one may be done before it sees the flag and another not,
        so that only the other would call :meth:`suspend`.
        """

    def mark(self) -> None:
        """Called between what looks at the flag and what does not."""

    def wait(self) -> None:
        """Return when the device has come to the mark."""

    def suspend(self) -> None:
        """Run what is more urgent."""


class ResumableTritonExperts(TritonExperts):
    """Long layers end at the next tile when the flag names their launch, and go on afterwards.

    All others are left to vLLM's kernel, which is faster for few tokens; a yield point before them
    is enough. Which kernel a step gets follows from its size, never from a suspension.

    ``interruption`` is set by whoever installs yield points; None, and in CUDA graphs, no flag is
    looked at and nothing waits for the device.
    """

    interruption: Interruption | None = None

    @staticmethod
    def is_supported_config(
        cls: type[mk.FusedMoEExperts],
        moe_config: Any,
        weight_key: Any,
        activation_key: Any,
        activation_format: mk.FusedMoEActivationFormat,
    ) -> tuple[bool, str | None]:
        """Whether this class can serve the layer, or why not; vLLM then asks the next class."""
        supported, reason = TritonExperts.is_supported_config(
            cls, moe_config, weight_key, activation_key, activation_format
        )
        if not supported:
            return supported, reason
        if moe_config.in_dtype not in (torch.bfloat16, torch.float16):
            return False, f"kernel does not support {moe_config.in_dtype}"
        if moe_config.swiglu_limit is not None:
            return False, "kernel does not clamp gate and up"
        if moe_config.is_lora_enabled:
            return False, "kernel does not support LoRA"
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

    @staticmethod
    def _supports_batch_invariance() -> bool:
        return False  # the kernel of a request depends on the size of its step

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
        if not _is_long(topk_ids, w2):
            super().apply(
                output,
                hidden_states,
                w1,
                w2,
                topk_weights,
                topk_ids,
                activation,
                global_num_experts,
                expert_map,
                a1q_scale,
                a2_scale,
                workspace13,
                workspace2,
                expert_tokens_meta,
                apply_router_weight_on_input,
            )
            return
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
            output,
        )
        interruption, stop = self.interruption, self._stop(hidden_states)
        while stop is not None:
            assert interruption is not None
            work.launch(stop, interruption.mark)
            # The layers that follow may be enqueued only when nothing of this one is left.
            interruption.wait()
            if not work.was_stopped():
                return
            interruption.suspend()
            stop = interruption.stop()
        work.launch()

    def _stop(self, hidden: torch.Tensor) -> Stop | None:
        if self.interruption is None:
            return None
        if hidden.is_cuda and torch.cuda.is_current_stream_capturing():
            return None
        return self.interruption.stop()


def _is_long(topk_ids: torch.Tensor, w2: torch.Tensor) -> bool:
    _, H, I = w2.shape  # noqa: E741
    if max(len(topk_ids), I) * H >= 2**31:
        return False  # beyond what our kernel can address
    return 6 * topk_ids.numel() * H * I >= LONG_SECONDS * FLOPS
