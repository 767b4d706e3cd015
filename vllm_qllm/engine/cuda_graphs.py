# SPDX-License-Identifier: Apache-2.0
"""Which steps replay CUDA graphs: they pass no yield point, and are short."""

from __future__ import annotations

from typing import Any


def captured_tokens(vllm_config: Any) -> int:
    """The most tokens of a step that may be replayed from a CUDA graph; 0 where there is none.

    Such a step keeps the buffers that its graph was captured on, those of lane 0, and Python does
    not see its layers.
    """
    compilation = vllm_config.compilation_config
    mode = compilation.cudagraph_mode
    if mode is None or not (mode.has_piecewise_cudagraphs() or mode.has_full_cudagraphs()):
        return 0
    return compilation.max_cudagraph_capture_size or 0
