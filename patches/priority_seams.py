# SPDX-License-Identifier: Apache-2.0
"""Where vllm-qllm hooks into vLLM. Without vllm-qllm every function stays as it is."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, TypeVar

T = TypeVar("T")


def seam(target: str) -> Callable[[T], T]:
    """Decorate what vllm-qllm knows by the name `target`.

    That is a function, or the class that holds it. Raises ImportError when vllm-qllm
    is installed but too old for this.
    """

    def decorate(found: T) -> T:
        if find_spec("vllm_qllm") is None:
            return found
        from vllm_qllm.seams import in_source

        wrapped: Any = in_source(target, found)
        return wrapped

    return decorate
