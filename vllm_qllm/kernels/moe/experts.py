# SPDX-License-Identifier: Apache-2.0
"""vLLM's interface to experts, on the CPU kernel that can stop between two pieces of its work."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from vllm.model_executor.kernels.linear.zentorch_utils import is_zentorch_moe_config_supported
from vllm.model_executor.layers.fused_moe.experts.cpu_moe import CPUUnquantizedExperts
from vllm.model_executor.utils import replace_parameter
from vllm.utils.torch_utils import _encode_layer_name

from vllm_qllm.kernels.moe import cpu, cpu_library, experts_op

# Between two yield points, roughly. A yield point costs about ten microseconds.
SPACING_SECONDS = 3e-3
# What one core does, roughly, by kernel; it sets the number of yield points and nothing else.
BYTES_PER_SECOND = 15e9
FLOPS = {"amx": 1e12, "avx512": 2e11, "brgemm": 1e12}


def stretches(
    tokens: int, topk: int, w13: torch.Tensor, kernel: str, most: float = math.inf
) -> int:
    """Into how many stretches of work to divide a call.

    Ranks must meet the same yield points, so this depends on nothing but sizes and the kernel,
    which is the same on all ranks of a machine: not on the routing, which may differ in a last
    bit, nor on the number of threads.

    Args:
        tokens: of the step.
        topk: experts of each token.
        w13: [experts, 2 * inter, hidden], of one rank.
        kernel: that computes them, of ``cpu_library.KERNELS``.
        most: stretches that whoever counts them can tell apart.
    """
    experts, columns, hidden = w13.shape
    weights = 3 * columns // 2 * hidden  # of one expert
    reading = min(tokens * topk, experts) * weights * w13.element_size() / BYTES_PER_SECOND
    computing = 2 * tokens * topk * weights / FLOPS[kernel]
    return int(min(most, max(1, math.ceil(max(reading, computing) / SPACING_SECONDS))))


class PreemptibleExperts(CPUUnquantizedExperts):
    """bf16 experts with a yield point about every :data:`SPACING_SECONDS`.

    All sizes of a step take the same kernel. Two steps share no scratch: all of it belongs to
    the :class:`~vllm_qllm.kernels.moe.cpu.Work` of one call.

    Attributes:
        yield_point: called before every stretch of work.
        max_stretches: into how many a call is divided at most; whoever sets ``yield_point`` may
            not be able to tell more of them apart.
    """

    reduction_alignment = 32

    def __init__(self, moe_config: Any, quant_config: Any) -> None:
        super().__init__(moe_config, quant_config)
        experts_op.register()
        self._layer_name = ""
        self.yield_point: Callable[[], None] = lambda: None
        self.max_stretches = math.inf

    @staticmethod
    def is_supported_config(
        cls: Any,
        moe_config: Any,
        weight_key: Any,
        activation_key: Any,
        activation_format: Any,
    ) -> tuple[bool, str | None]:
        """Whether this class can serve the layer, or why not; vLLM then asks the next class."""
        if reason := cpu.available():
            return False, reason
        if moe_config.in_dtype != torch.bfloat16:
            return False, f"the kernel computes in bfloat16, not in {moe_config.in_dtype}"
        if moe_config.moe_parallel_config.use_ep:
            return False, "the kernel has all experts of a layer on every rank"
        if is_zentorch_moe_config_supported(moe_config):
            return False, "ZenDNN computes this layer"
        return CPUUnquantizedExperts.is_supported_config(
            cls, moe_config, weight_key, activation_key, activation_format
        )

    def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
        """Replace the weights of ``layer`` by those in the kernel's layout, of the same size."""
        self._layer_name = layer.layer_name
        self._pad_moe_intermediate(layer)
        replace_parameter(layer, "w13_weight", cpu.pack(layer.w13_weight))
        replace_parameter(layer, "w2_weight", cpu.pack(layer.w2_weight))

    def apply(
        self,
        output: torch.Tensor,
        hidden_states: torch.Tensor,
        w1: torch.Tensor,
        w2: torch.Tensor,
        topk_weights: torch.Tensor,
        topk_ids: torch.Tensor,
        activation: Any,
        *args: Any,
        apply_router_weight_on_input: bool = False,
        **others: Any,
    ) -> None:
        """Compute the experts of a batch into ``output`` [tokens, hidden]; may be traced."""
        torch.ops.vllm_qllm.experts(
            output,
            hidden_states,
            w1,
            w2,
            topk_weights,
            topk_ids,
            activation.value,
            apply_router_weight_on_input,
            _encode_layer_name(self._layer_name),
        )

    def compute(
        self,
        output: torch.Tensor,
        hidden_states: torch.Tensor,
        w1: torch.Tensor,
        w2: torch.Tensor,
        topk_weights: torch.Tensor,
        topk_ids: torch.Tensor,
        activation: str,
        apply_router_weight_on_input: bool,
    ) -> None:
        """The same, now, stopping at yield points. A traced graph calls it when it runs."""
        work = cpu.Work(
            output,
            hidden_states.contiguous(),
            w1,
            w2,
            self.w1_bias,
            self.w2_bias,
            topk_weights,
            topk_ids,
            activation,
            apply_router_weight_on_input,
        )
        kernel = cpu_library.load().kernel
        tokens, topk = topk_ids.shape
        count = stretches(tokens, topk, w1, kernel, self.max_stretches)
        for number in range(1, count + 1):
            self.yield_point()
            work.run(max_items=work.items * number // count - work.position)
        assert work.position == work.items
