# SPDX-License-Identifier: Apache-2.0
"""Where a step can be suspended: before the attention of every layer.

Attention is reached through an opaque custom op, in compiled mode too, which looks up the
layer's own method at run time. Replacing that one attribute of each layer's object puts a
checkpoint into every model without knowing any of them, and into no model when no policy is on.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


def _before(checkpoint: Callable[[], None], function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        checkpoint()
        return function(*args, **kwargs)

    return checked


def install(layers: dict[str, Any], checkpoint: Callable[[], None]) -> int:
    """Put a checkpoint before the attention of each layer.

    Args:
        layers: vLLM's ``static_forward_context``: layer objects by name.
        checkpoint: called before each layer's attention.

    Returns:
        The number of checkpoints that a forward pass will meet.

    Raises:
        RuntimeError: no layer of the model has attention that is known here.
    """
    count = 0
    for layer in layers.values():
        if hasattr(layer, "forward_impl"):  # MLA: the op calls layer.forward_impl
            owner, name = layer, "forward_impl"
        elif hasattr(getattr(layer, "impl", None), "forward"):  # the op calls layer.impl.forward
            owner, name = layer.impl, "forward"
        else:
            continue
        setattr(owner, name, _before(checkpoint, getattr(owner, name)))
        count += 1
    if not count:
        raise RuntimeError("the model has no attention layer at which a step could be suspended")
    return count
