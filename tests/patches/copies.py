# SPDX-License-Identifier: Apache-2.0
"""Copies of the installed vLLM that can be patched without touching it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path


def files_of(patches: Iterable[Path]) -> set[str]:
    """The files that patches change or add, below the directory that holds ``vllm/``."""
    lines = (line for patch in patches for line in patch.read_text().splitlines())
    return {line.removeprefix("+++ b/") for line in lines if line.startswith("+++ b/")}


def copy_files(root: Path, to: Path, names: Iterable[str]) -> None:
    """Copy those of the named files that there are."""
    for name in names:
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        if (root / name).exists():
            shutil.copyfile(root / name, to / name)


def overlay(root: Path, to: Path, names: Iterable[str]) -> None:
    """A whole package in ``to``: the named files are copies, everything else links to ``root``.

    Compiled extensions are found through the links. Caches of compiled files are not linked
    beside a copy: what is compiled there must not replace what belongs to the original.
    """
    copy_files(root, to, names)
    folders = {parent for name in names for parent in Path(name).parents if parent.parts}
    for folder in folders:
        for entry in (root / folder).iterdir():
            here = to / folder / entry.name
            if entry.name != "__pycache__" and not here.exists():
                here.symlink_to(entry)


def run(*command: str, into: Path | None = None, text: str = "") -> str:
    """Run a command on ``text``; AssertionError with what it printed unless it succeeds."""
    done = subprocess.run(
        command, cwd=into, input=text, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}"
    return done.stdout
