# SPDX-License-Identifier: Apache-2.0
"""Where a step can be suspended: before the attention of every layer, and among its experts.

Attention is reached through an opaque custom op, in compiled mode too, which looks up the
layer's own method at run time. Replacing that one attribute of each layer's object puts a
yield point into every model without knowing any of them, and into no model when no policy is on.
Experts are reached in the same way where their layer was made opaque (see ``seams``).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

from vllm_qllm.execution.agreement import SLOTS
from vllm_qllm.execution.protocol import AFTER_ATTENTION, BEFORE_ATTENTION, EXPERTS, Place
from vllm_qllm.kernels.moe.row_tiles import in_row_tiles

YieldPoint = Callable[[], None]
YieldPointAt = Callable[[Place], None]


def _place(name: str, where: str) -> Place:
    """A place by the name of its layer ("model.layers.7.self_attn.attn")."""
    number = re.search(r"\.(\d+)\.", name)
    return Place(int(number[1]) if number else -1, where)


def _at(yield_point: YieldPointAt, name: str, where: str) -> YieldPoint:
    return functools.partial(yield_point, _place(name, where))


def _before(yield_point: YieldPoint, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        yield_point()
        return function(*args, **kwargs)

    return checked


def _after(yield_point: YieldPoint, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        yield_point()
        return result

    return checked


def install(
    layers: dict[str, Any],
    yield_point: YieldPointAt,
    *,
    experts: bool = False,
    interruption: Callable[[Place], Any] | None = None,
) -> int:
    """Put a yield point before the attention of each layer.

    Args:
        layers: vLLM's ``static_forward_context``: layer objects by name.
        yield_point: called at each yield point, with its place.
        experts: also after the attention of each layer, and among its experts.
        interruption: makes what stops a running kernel of the experts at a place; None where
            there is no such kernel.

    Returns:
        The number of yield points that a forward pass of few tokens will meet.

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
        forward = _before(_at(yield_point, name, BEFORE_ATTENTION), getattr(owner, method))
        if experts:
            forward = _after(_at(yield_point, name, AFTER_ATTENTION), forward)
        setattr(owner, method, forward)
        count += 2 if experts else 1
    if not count:
        raise RuntimeError("the model has no attention layer at which a step could be suspended")
    if experts:
        for name, layer in layers.items():
            count += _among_experts(layer, _at(yield_point, name, EXPERTS))
            if interruption is not None:
                _interrupt(layer, interruption(_place(name, EXPERTS)))
    return count


def _setting_aside(layer: Any, suspend: YieldPoint) -> YieldPoint:
    """``suspend`` within the experts of a layer, with what the layer keeps on itself put aside.

    Between their computation and their use the output of shared experts, what a router gives to
    experts that are none, and the input that LoRA reads belong to the step; a nested one would
    put its own there.
    """
    owners = (
        (layer.shared_experts, "_output"),
        (layer.router, "_zero_expert_output"),
        (getattr(_experts(layer), "_lora_context", None), "original_hidden_states"),
    )
    kept = [(owner, name) for owner, name in owners if hasattr(owner, name)]
    if not kept:
        return suspend

    def checked() -> None:
        values = [getattr(owner, name) for owner, name in kept]
        for (owner, name), value in zip(kept, values, strict=True):
            setattr(owner, name, [None] * len(value) if isinstance(value, list) else None)
        suspend()
        for (owner, name), value in zip(kept, values, strict=True):
            setattr(owner, name, value)

    return checked


def _experts(layer: Any) -> Any:
    """What computes the experts of a layer; None if it has none."""
    method = getattr(getattr(layer, "routed_experts", None), "quant_method", None)
    kernel = getattr(method, "moe_kernel", None)
    return None if kernel is None else kernel.fused_experts


def _interrupt(layer: Any, interruption: Any) -> None:
    """Let the kernel of a layer's experts be stopped, if it is one of this package."""
    experts = _experts(layer)
    if hasattr(experts, "interruption"):
        interruption.suspend = _setting_aside(layer, interruption.suspend)
        experts.interruption = interruption


def _among_experts(layer: Any, yield_point: YieldPoint) -> int:
    """Yield points that few tokens meet in this layer: 1 if it is an MoE layer, else 0."""
    from vllm.model_executor.layers.fused_moe.experts.cpu_moe import CPUUnquantizedExperts

    experts = _experts(layer)
    if experts is None:
        return 0
    yield_point = _setting_aside(layer, yield_point)
    if hasattr(experts, "yield_point"):  # a kernel of this package
        experts.yield_point = yield_point
        # Ranks agree on a yield point through a slot of its own, and are never this many apart.
        experts.max_stretches = SLOTS // 2
    elif isinstance(experts, CPUUnquantizedExperts):
        experts.apply = in_row_tiles(experts.apply, yield_point)
    else:
        experts.apply = _before(yield_point, experts.apply)
    return 1
