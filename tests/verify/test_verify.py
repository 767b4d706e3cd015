# SPDX-License-Identifier: Apache-2.0
"""``python -m vllm_qllm.verify`` tells the truth, and its exit status too."""

from __future__ import annotations

import importlib.metadata
import inspect
import json
import os
import subprocess
import sys
from typing import Any

import pytest

from vllm_qllm import contract, seams
from vllm_qllm.execution import flag
from vllm_qllm.kernels.moe import cpu_library
from vllm_qllm.verify import __main__ as verify


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    status = verify.main(list(arguments))
    return status, capsys.readouterr().out


def test_it_works_here() -> None:
    environment = {k: v for k, v in os.environ.items() if k != "VLLM_LOGGING_LEVEL"}
    done = subprocess.run(
        [sys.executable, "-m", "vllm_qllm.verify"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert "vllm-qllm" in lines[0]
    assert lines[-1] == "Serving with --priority-policy strict works here."
    for seam in seams.ALL:
        said = f"{seam}: {seam.why} ({seams.RUN_TIME})"
        assert any(line.startswith("  ok") and line.endswith(said) for line in lines)
    assert "BAD" not in done.stdout
    assert any("among the experts" in line and "ok" in line for line in lines)


def test_it_names_the_kernel_of_experts(capsys: pytest.CaptureFixture[str]) -> None:
    library = cpu_library.load()
    line = next(line for line in run(capsys)[1].splitlines() if "expert kernel" in line)
    assert (library.reason or f"{library.kernel}, for bf16 experts") in line


def test_json_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    status, out = run(capsys, "--json")
    report = json.loads(out)
    assert status == 0
    assert report["works"] is True
    assert report["versions"]["vllm"].startswith(contract.SUPPORTED)
    assert {f["name"] for f in report["findings"]} >= {"entry point", "seam", "policies", "metrics"}


def test_another_vllm_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(contract, "SUPPORTED", "9.9.9")
    status, out = run(capsys)
    assert status == 1
    assert "vLLM 0.32.0 is installed, this release supports 9.9.9" in out
    assert "would NOT work" in out
    assert "Traceback" not in out
    assert json.loads(run(capsys, "--json")[1])["works"] is False


def test_a_seam_that_changed_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seam = seams.ENGINE[0]
    holder: Any = seam.holder()

    def changed(self: Any, another: int) -> None: ...

    monkeypatch.setattr(holder, seam.name, changed)
    status, out = run(capsys)
    assert status == 1
    assert f"{seam} has parameters self, another" in out
    assert seam.why in out


def test_a_seam_that_is_gone_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seam = next(seam for seam in seams.HTTP if seam.owner)
    monkeypatch.delattr(inspect.getmodule(seam.holder()), seam.owner)  # type: ignore[arg-type]
    status, out = run(capsys)
    assert status == 1
    assert f"{seam} is gone" in out
    assert "Traceback" not in out


def test_a_plugin_that_vllm_would_not_load_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VLLM_PLUGINS", "another")
    status, out = run(capsys)
    assert status == 1
    assert "VLLM_PLUGINS=another" in out
    monkeypatch.setenv("VLLM_PLUGINS", "another,qllm")
    assert run(capsys)[0] == 0


def test_a_missing_entry_point_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: ())
    status, out = run(capsys)
    assert status == 1
    assert "vllm.general_plugins has no qllm" in out


def test_no_shared_memory_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(flag.shared_memory, "SharedMemory", refuse)
    status, out = run(capsys)
    assert status == 1
    assert "cannot be created" in out
    assert "/dev/shm" in out


def test_the_other_model_runner_is_refused_with_a_remedy() -> None:
    # A process of its own: engines of other tests make vLLM keep what it read of the environment.
    done = subprocess.run(
        [sys.executable, "-m", "vllm_qllm.verify"],
        capture_output=True,
        text=True,
        env=os.environ | {"VLLM_USE_V2_MODEL_RUNNER": "1"},
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert "VLLM_USE_V2_MODEL_RUNNER=1: V2 is not supported; unset it" in done.stdout


def test_the_other_front_end_is_refused_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from vllm import envs

    envs.disable_envs_cache()  # engines of other tests make vLLM keep what it read
    monkeypatch.setenv("VLLM_USE_RUST_FRONTEND", "1")
    status, out = run(capsys)
    assert status == 1
    assert "VLLM_USE_RUST_FRONTEND=1: the Rust front end is not supported; unset it" in out
