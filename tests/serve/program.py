# SPDX-License-Identifier: Apache-2.0
"""Runs a program to its end, as a user does: in a process of its own, with vLLM's defaults."""

from __future__ import annotations

import os
import subprocess
import sys


def run(*arguments: str, timeout_seconds: float = 240.0) -> str:
    """What ``python ARGUMENTS`` prints; AssertionError with all of it when that fails."""
    environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "PYTHONPATH": os.getcwd()}
    # Tests set it for engines in their own process.
    environment.pop("VLLM_ENABLE_V1_MULTIPROCESSING", None)
    ended = subprocess.run(
        [sys.executable, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment,
        timeout=timeout_seconds,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout
