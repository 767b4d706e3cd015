# SPDX-License-Identifier: Apache-2.0
"""Priority classes and in-step preemption for vLLM.

Importing this package imports neither vLLM nor torch; vLLM loads ``vllm_qllm.plugin``
through its plugin entry point.
"""

from typing import Any

__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    """``vllm_qllm.LLM`` is ``vllm.LLM`` itself, once the plugin is loaded.

    vLLM loads plugins while it builds the engine's arguments, too late for ``LLM(...)`` to know
    the keyword arguments of a plugin. A server needs nothing of this.
    """
    if name != "LLM":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from vllm import LLM
    from vllm.plugins import load_general_plugins

    load_general_plugins()
    return LLM
