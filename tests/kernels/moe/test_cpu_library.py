# SPDX-License-Identifier: Apache-2.0
"""The compiled part of the CPU kernel: absent, foreign or failing, it says so in a sentence."""

from __future__ import annotations

import importlib.util
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import setuptools
import torch

from vllm_qllm.kernels.moe import cpu, cpu_library

ROOT = Path(__file__).parents[3]


def test_a_library_that_was_not_built(tmp_path: Path) -> None:
    library = cpu_library.load(tmp_path / "none.so")
    assert "not built" in str(library.reason)


def test_a_library_that_does_not_load(tmp_path: Path) -> None:
    path = tmp_path / "broken.so"
    path.write_text("not a library")
    assert "does not load" in str(cpu_library.load(path).reason)


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
    with pytest.raises(RuntimeError, match="not built"):
        cpu.pack(torch.zeros(1, 32, 32, dtype=torch.bfloat16))


def test_installs_without_a_compiler(tmp_path: Path) -> None:
    build = [sys.executable, "setup.py", "build_ext", "--force"]
    build += ["--build-lib", str(tmp_path / "lib"), "--build-temp", str(tmp_path / "temp")]
    env = os.environ | {"CC": "no-such-compiler", "CXX": "no-such-compiler"}
    done = subprocess.run(build, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "not built: the compiler failed" in done.stderr
    assert not list(tmp_path.rglob("*.so"))


def test_installs_without_torch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", given.update)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    runpy.run_path(str(ROOT / "setup.py"))
    assert given["ext_modules"] == []
    assert "torch is not installed here" in capsys.readouterr().err
