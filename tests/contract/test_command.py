# SPDX-License-Identifier: Apache-2.0
"""``python -m vllm_qllm.contract``: exit status, report, and taking over another vLLM."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from vllm_qllm.contract import SUPPORTED, moved
from vllm_qllm.contract.__main__ import main

Change = Callable[[str, str, str], Path]
RUNNER = "vllm.v1.worker.gpu_model_runner"
EXECUTE = "    def sample_tokens(\n        self, "


def test_the_installed_vllm_is_known_and_is_not_imported() -> None:
    code = (
        "import sys\n"
        "from vllm_qllm.contract.__main__ import main\n"
        "status = main([])\n"
        "print(sorted({'vllm', 'torch'} & set(sys.modules)))\n"
        "sys.exit(status)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"vLLM {SUPPORTED} has all ")
    assert lines[1] == "[]"


def test_another_vllm_is_compared(change: Change, capsys: pytest.CaptureFixture[str]) -> None:
    root = change(RUNNER, EXECUTE, EXECUTE + "more, ")
    assert main([str(root)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("vLLM of unknown version: 1 of ")
    assert lines[2:5] == [
        "other parameters (1)",
        f"  {RUNNER}:GPUModelRunner.sample_tokens",
        "      now with more",
    ]
    assert lines[5].startswith("      used by seams.engine:_sample_tokens: Finishes the step")


def test_a_diff_is_shown(change: Change, capsys: pytest.CaptureFixture[str]) -> None:
    root = change("vllm.v1.request", "return self.priority < other.priority", "return False")
    assert main([str(root), "--diff"]) == 1
    out = capsys.readouterr().out
    assert "-        return self.priority < other.priority" in out
    assert "+        return False" in out


def test_it_is_accepted_after_a_review(
    change: Change,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    known = tmp_path_factory.mktemp("known") / "known.json"
    shutil.copy(moved.KNOWN, known)
    monkeypatch.setattr(moved, "KNOWN", known)
    root = change(RUNNER, EXECUTE, EXECUTE + "more, ")
    assert main([str(root), "--accept"]) == 0
    assert main([str(root)]) == 0
    # Nothing but that one symbol was written in another way.
    before, after = Path(moved.__file__).with_name("known.json"), known
    lines = zip(before.read_text().splitlines(), after.read_text().splitlines(), strict=True)
    changed = [new for old, new in lines if old != new]
    assert len(changed) == 1
    assert '"more"' in changed[0]


def test_nothing_is_accepted_while_something_is_gone(
    change: Change,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    known = tmp_path_factory.mktemp("known") / "known.json"
    known.write_text(json.dumps({}))
    monkeypatch.setattr(moved, "KNOWN", known)
    root = change("vllm.v1.core.block_pool", "def get_num_free_blocks(", "def free_blocks_left(")
    assert main([str(root), "--accept"]) == 1
    assert "BlockPool.get_num_free_blocks: gone" in capsys.readouterr().out
    assert json.loads(known.read_text()) == {}


def test_a_directory_without_vllm_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err
