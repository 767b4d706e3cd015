# SPDX-License-Identifier: Apache-2.0
"""The installed vLLM as it came, and a patched copy of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from patches.make import DIFFS, installed_root
from tests.patches.copies import files_of, overlay, run


@pytest.fixture(scope="session")
def root() -> Path:
    """The directory that holds the installed ``vllm/``."""
    return installed_root()


@pytest.fixture(scope="session")
def committed() -> list[Path]:
    """The patches of the tree, in order."""
    return sorted(DIFFS.glob("*.patch"))


@pytest.fixture(scope="session")
def patched(root: Path, committed: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for PYTHONPATH with a vLLM to which all patches were applied."""
    to = tmp_path_factory.mktemp("patched")
    overlay(root, to, files_of(committed))
    for patch in committed:
        run("patch", "-p1", "--fuzz=0", "--no-backup-if-mismatch", "-i", str(patch), into=to)
    return to
