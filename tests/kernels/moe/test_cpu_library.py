# SPDX-License-Identifier: Apache-2.0
"""The compiled part of the CPU kernel: absent, foreign or failing, it says so in a sentence."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch

import vllm_qllm
from vllm_qllm.kernels.moe import cpu, cpu_library


def test_a_library_that_was_not_built(tmp_path: Path) -> None:
    library = cpu_library.load(tmp_path / "none.so")
    assert "not installed" in str(library.reason)


def test_a_library_that_does_not_load(tmp_path: Path) -> None:
    path = tmp_path / "broken.so"
    path.write_text("not a library")
    assert "does not load" in str(cpu_library.load(path).reason)


@pytest.mark.skipif(not cpu_library.PATH.exists(), reason="the kernel was not built")
def test_a_library_of_another_release() -> None:
    reason = str(cpu_library.load(release="9.9.9").reason)
    assert reason == f"the MoE kernel is of vllm-qllm {vllm_qllm.__version__}, this is 9.9.9"


def test_a_library_of_before_releases_were_checked(tmp_path: Path) -> None:
    path, source = tmp_path / "old.so", tmp_path / "old.cpp"
    source.write_text('extern "C" const char* qllm_torch_version() { return "1"; }\n')
    subprocess.run(["g++", "-shared", "-fPIC", "-o", path, source], check=True, timeout=60)
    assert "before 0.2.0" in str(cpu_library.load(path).reason)


@pytest.mark.skipif(not cpu_library.PATH.exists(), reason="the kernel was not built")
def test_a_library_for_another_torch() -> None:
    reason = str(cpu_library.load(torch_version="9.9.9+cpu").reason)
    assert "built for torch" in reason
    assert "9.9.9+cpu" in reason


def test_another_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert "riscv64" in str(cpu_library.load.__wrapped__().reason)


def test_what_is_not_available_raises_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = cpu_library.load(Path("none.so"))
    monkeypatch.setattr(cpu_library, "load", lambda: missing)
    assert cpu.available() == missing.reason
    with pytest.raises(RuntimeError, match="not installed"):
        cpu.pack(torch.zeros(1, 32, 32, dtype=torch.bfloat16))
