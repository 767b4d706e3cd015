# SPDX-License-Identifier: Apache-2.0
"""A configuration and a policy can be checked where there is neither vLLM nor torch."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module",
    [
        "vllm_qllm",
        "vllm_qllm.config",
        "vllm_qllm.policy",
        "vllm_qllm.capacity.__main__",
        "vllm_qllm.access.tenants_config",
        "vllm_qllm.keys",
        "vllm_qllm.batch.__main__",
        "vllm_qllm.ray.server",
        "vllm_qllm.ray.urgency",
    ],
)
def test_imports_neither_vllm_nor_torch(module: str) -> None:
    code = (
        f"import sys, {module}\n"
        "print(sorted(m for m in sys.modules if m.partition('.')[0] in ('vllm', 'torch')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"
