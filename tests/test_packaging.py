# SPDX-License-Identifier: Apache-2.0
"""What is packed and built from the tree, by copies of it: nothing is missing, nothing is stale."""

from __future__ import annotations

import ensurepip
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Stands for g++: what it "links" says what it was built for.
COMPILER = """#!/bin/sh
for argument in "$@"; do
  [ "$last" = -o ] && echo "$TORCH" > "$argument"
  last=$argument
done
"""


@pytest.fixture(scope="session")
def tracked() -> frozenset[str]:
    """Files that belong to the tree."""
    command = ["git", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a checkout: what belongs to the tree is not known")
    return frozenset(name for name in listed.stdout.split("\0") if (ROOT / name).is_file())


@pytest.fixture
def tree(tracked: frozenset[str], tmp_path: Path) -> Path:
    """A copy, and what a used tree holds besides."""
    copy = tmp_path / "tree"
    for name in tracked:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, copy / name)
    for left in (
        "vllm_qllm/kernels/moe/_moe_cpu.so",
        "vllm_qllm/__pycache__/plugin.cpython-311.pyc",
        "benchmarks/.models/model.safetensors",
        "benchmarks/traces/trace.csv",
        "deploy/.env",
        ".deploy/tool",
        ".venv/bin/python",
    ):
        (copy / left).parent.mkdir(parents=True, exist_ok=True)
        (copy / left).write_text("left over")
    return copy


def setup(tree: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run setup.py there; its output ends in the exit status."""
    return subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:setuptools", "setup.py", *arguments],
        cwd=tree,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_source_distribution_is_the_tree(tree: Path, tracked: frozenset[str]) -> None:
    done = setup(tree, "sdist", "--formats", "gztar")
    assert done.returncode == 0, done.stderr
    (archive,) = (tree / "dist").glob("*.tar.gz")
    with tarfile.open(archive) as file:
        packed = {m.name.partition("/")[2] for m in file.getmembers() if m.isfile()}
    made = {name for name in packed if name in ("PKG-INFO", "setup.cfg") or ".egg-info/" in name}
    assert packed - made == tracked


def test_all_of_the_package_is_installed(tree: Path, tracked: frozenset[str]) -> None:
    done = setup(tree, "build_py", "--build-lib", "installed")
    assert done.returncode == 0, done.stderr
    found = {
        str(path.relative_to(tree / "installed"))
        for path in (tree / "installed").rglob("*")
        if path.is_file()
    }
    assert found == {name for name in tracked if name.startswith("vllm_qllm/")}


def test_nothing_of_an_earlier_build_is_installed(tree: Path, tmp_path: Path) -> None:
    """With another torch, and then with none that can be built for; the tree stays as it is."""
    torch, compiler = tmp_path / "site/torch", tmp_path / "g++"
    torch.mkdir(parents=True)
    (torch / "__init__.py").touch()
    compiler.write_text(COMPILER)
    compiler.chmod(0o755)
    built = []
    for version, works in (("1", compiler), ("2", compiler), ("3", "no-such-compiler")):
        done = setup(
            tree,
            "build",
            PYTHONPATH=str(torch.parent),
            TORCH=version,
            **dict.fromkeys(("CC", "CXX", "LDSHARED", "LDCXXSHARED"), str(works)),
        )
        assert done.returncode == 0, done.stderr
        built.append([path.read_text().strip() for path in (tree / "build").rglob("*_moe_cpu.so")])
        (tree / f"vllm_qllm/added_{version}.py").touch()
        (tree / f"vllm_qllm/added_{int(version) - 1}.py").unlink(missing_ok=True)
    assert built == [["1"], ["2"], []]
    assert {path.name for path in (tree / "build").rglob("added*")} == {"added_2.py"}


def test_a_setuptools_that_is_too_old_is_named(tree: Path, tmp_path: Path) -> None:
    """That of a new environment of Python 3.11, in a build without isolation."""
    bundled = sorted((Path(ensurepip.__file__).parent / "_bundled").glob("setuptools-*.whl"))
    if not bundled:
        pytest.skip("this Python brings no setuptools of its own")
    old = tmp_path / "old"
    zipfile.ZipFile(bundled[0]).extractall(old)
    program = "import sys; sys.path.insert(0, sys.argv[1]); from setuptools import build_meta; "
    program += "build_meta.prepare_metadata_for_build_wheel('.')"
    done = subprocess.run(
        [sys.executable, "-IS", "-c", program, str(old)],
        cwd=tree,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert "allowed: 77 or newer" in done.stderr and "Traceback" not in done.stderr
