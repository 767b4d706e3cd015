# SPDX-License-Identifier: Apache-2.0
"""Where a step can be suspended: before the attention of every layer, and among its experts.

Attention is reached through an opaque custom op, in compiled mode too, which looks up the
layer's own method at run time. Replacing that one attribute of each layer's object puts a
checkpoint into every model without knowing any of them, and into no model when no policy is on.
Experts are reached in the same way where their layer was made opaque (see ``seams``).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

from vllm_qllm.execution.protocol import AFTER_ATTENTION, BEFORE_ATTENTION, EXPERTS, Place
from vllm_qllm.kernels.moe.row_tiles import in_row_tiles

Checkpoint = Callable[[], None]
CheckpointAt = Callable[[Place], None]


def _at(checkpoint: CheckpointAt, name: str, where: str) -> Checkpoint:
    """The checkpoint of one place, by the name of its layer ("model.layers.7.self_attn.attn")."""
    number = re.search(r"\.(\d+)\.", name)
    return functools.partial(checkpoint, Place(int(number[1]) if number else -1, where))


def _before(checkpoint: Checkpoint, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        checkpoint()
        return function(*args, **kwargs)

    return checked


def _after(checkpoint: Checkpoint, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        checkpoint()
        return result

    return checked


def install(layers: dict[str, Any], checkpoint: CheckpointAt, *, experts: bool = False) -> int:
    """Put a checkpoint before the attention of each layer.

    Args:
        layers: vLLM's ``static_forward_context``: layer objects by name.
        checkpoint: called at each checkpoint, with its place.
        experts: also after the attention of each layer, and among its experts.

    Returns:
        The number of checkpoints that a forward pass of few tokens will meet.

    Raises:
        RuntimeError: no layer of the model has attention that is known here.
    """
    count = 0
    for name, layer in layers.items():
        if hasattr(layer, "forward_impl"):  # MLA: the op calls layer.forward_impl
            owner, method = layer, "forward_impl"
        elif hasattr(getattr(layer, "impl", None), "forward"):  # the op calls layer.impl.forward
            owner, method = layer.impl, "forward"
        else:
            continue
        forward = _before(_at(checkpoint, name, BEFORE_ATTENTION), getattr(owner, method))
        if experts:
            forward = _after(_at(checkpoint, name, AFTER_ATTENTION), forward)
        setattr(owner, method, forward)
        count += 2 if experts else 1
    if not count:
        raise RuntimeError("the model has no attention layer at which a step could be suspended")
    if experts:
        for name, layer in layers.items():
            count += _among_experts(layer, _at(checkpoint, name, EXPERTS))
    return count


def _setting_aside(shared: Any, checkpoint: Checkpoint) -> Checkpoint:
    """A checkpoint between the shared experts of a layer and the use of their output.

    The layer keeps that output on itself, where a nested step would put its own.
    """

    def checked() -> None:
        outputs = shared._output
        shared._output = [None] * len(outputs)
        checkpoint()
        shared._output = outputs

    return checked


def _among_experts(layer: Any, checkpoint: Checkpoint) -> int:
    """Checkpoints that few tokens meet in this layer: 1 if it is an MoE layer, else 0."""
    from vllm.model_executor.layers.fused_moe.experts.cpu_moe import CPUUnquantizedExperts

    method = getattr(getattr(layer, "routed_experts", None), "quant_method", None)
    kernel = getattr(method, "moe_kernel", None)
    if kernel is None:
        return 0
    experts = kernel.fused_experts
    if layer.shared_experts is not None:
        checkpoint = _setting_aside(layer.shared_experts, checkpoint)
    if hasattr(experts, "checkpoint"):  # a kernel of this package
        experts.checkpoint = checkpoint
    elif isinstance(experts, CPUUnquantizedExperts):
        experts.apply = in_row_tiles(experts.apply, checkpoint)
    else:
        experts.apply = _before(checkpoint, experts.apply)
    return 1
