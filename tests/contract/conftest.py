# SPDX-License-Identifier: Apache-2.0
"""A copy of what the contract reads of the installed vLLM, for tests to change."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from vllm_qllm.contract.moved import installed_root
from vllm_qllm.contract.uses import ALL


def file_of(root: Path, module: str) -> Path:
    """The file that holds a module."""
    path = root.joinpath(*module.split("."))
    file = path.with_name(path.name + ".py")
    return file if file.is_file() else path / "__init__.py"


@pytest.fixture(scope="session")
def installed() -> Path:
    """Where the installed vLLM is."""
    root = installed_root()
    assert root is not None
    return root


@pytest.fixture
def copied(installed: Path, tmp_path: Path) -> Path:
    """A directory that holds a copy of every file that a symbol of the contract is in."""
    for module in {"vllm"} | {d.symbol.partition(":")[0] for d in ALL}:
        source = file_of(installed, module)
        target = tmp_path / source.relative_to(installed)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    return tmp_path


@pytest.fixture
def change(copied: Path) -> Callable[[str, str, str], Path]:
    """Replaces text in the copy of a module, which must hold it once, and gives the copy."""

    def change(module: str, old: str, new: str) -> Path:
        file = file_of(copied, module)
        text = file.read_text()
        assert text.count(old) == 1, f"{module} holds {old!r} {text.count(old)} times"
        file.write_text(text.replace(old, new))
        return copied

    return change
