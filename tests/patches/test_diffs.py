# SPDX-License-Identifier: Apache-2.0
"""The committed diffs are what the seams give, and fit the installed vLLM exactly."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from patches import make
from patches.source import File
from tests.patches.copies import copy_files, files_of, run
from vllm_qllm import seams

WAYS = {
    "patch": ["patch", "-p1", "--fuzz=0", "--no-backup-if-mismatch"],
    "git": ["git", "apply", "--whitespace=error"],
}


def contents(folder: Path) -> dict[str, bytes]:
    """Everything in a folder, by path."""
    files = (p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


@pytest.fixture
def copies(root: Path, committed: list[Path], tmp_path: Path) -> Path:
    """The files that patches change, as they are installed."""
    copy_files(root, tmp_path, files_of(committed))
    return tmp_path


def test_they_are_what_the_seams_give(root: Path, committed: list[Path]) -> None:
    made = make.texts(root)
    assert {patch.name: patch.read_text() for patch in committed} == made, "run `make patches`"


@pytest.mark.parametrize("way", WAYS)
def test_they_apply_without_fuzz_and_reverse_cleanly(
    way: str, copies: Path, committed: list[Path]
) -> None:
    before = contents(copies)
    for patch in committed:
        said = run(*WAYS[way], into=copies, text=patch.read_text())
        assert "offset" not in said and "fuzz" not in said
    assert contents(copies).keys() == files_of(committed)
    for patch in reversed(committed):
        run(*WAYS[way], "-R", into=copies, text=patch.read_text())
    assert contents(copies) == before


def test_each_applies_alone_in_any_order(copies: Path, committed: list[Path]) -> None:
    for patch in reversed(committed):
        said = run(*WAYS["patch"], into=copies, text=patch.read_text())
        assert "offset" not in said and "fuzz" not in said


def test_git_am_takes_them(copies: Path, committed: list[Path]) -> None:
    user = ["-c", "user.name=vllm-qllm", "-c", "user.email=noreply@example.invalid"]
    run("git", "init", "-q", into=copies)
    run("git", "add", "-A", into=copies)
    run("git", *user, "commit", "-q", "-m", "vLLM", into=copies)
    run("git", *user, "am", *map(str, committed), into=copies)
    log = run("git", "log", "--format=%an <%ae>", into=copies).splitlines()
    assert log == ["vllm-qllm <noreply@example.invalid>"] * (len(committed) + 1)


def test_the_smallest_change_in_vllm_is_noticed(copies: Path, committed: list[Path]) -> None:
    target = copies / "vllm/v1/engine/core.py"
    text = target.read_text()
    assert text.count("    def run_busy_loop(self):\n        ") == 2
    changed = text.replace("def run_busy_loop(self):", "def run_busy_loop(self, more=0):")
    target.write_text(changed)
    patch = next(p for p in committed if "engine/core.py" in p.read_text())
    done = subprocess.run(WAYS["patch"], cwd=copies, input=patch.read_bytes(), capture_output=True)
    assert done.returncode == 1


def test_a_seam_without_a_place_is_refused(copies: Path) -> None:
    gone = seams.Seam("vllm.v1.engine.core", "EngineCoreProc", "gone", (), "nothing", lambda f: f)
    with pytest.raises(LookupError, match="does not define"):
        File(copies, "vllm/v1/engine/core.py").decorate(gone)


def test_a_patched_vllm_is_not_patched_again(
    copies: Path, patched: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(make, "find_spec", lambda _: Spec(patched / "vllm/__init__.py"))
    assert make.main() == 1
    assert "is patched already" in capsys.readouterr().err


class Spec:
    """Where a module was found."""

    def __init__(self, origin: Path) -> None:
        self.origin = str(origin)


def test_the_headers_name_nobody(committed: list[Path]) -> None:
    for patch in committed:
        lines = patch.read_text().splitlines()
        addresses = [line for line in lines if "@" in line and line.startswith(("From", "Signed"))]
        assert addresses == ["From: vllm-qllm <noreply@example.invalid>"]
