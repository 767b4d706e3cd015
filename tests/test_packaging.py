# SPDX-License-Identifier: Apache-2.0
"""What is packed and built from the tree, by copies of it: nothing is missing, nothing is stale."""

from __future__ import annotations

import email
import ensurepip
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import setuptools

import vllm_qllm
from tests.clean_install import Environment

ROOT = Path(__file__).parents[1]
KERNEL = "vllm_qllm/kernels/moe/_moe_cpu.so"
# Stands for g++: what it "links" says what it was built for.
COMPILER = """#!/bin/sh
for argument in "$@"; do
  [ "$last" = -o ] && echo "$TORCH" > "$argument"
  last=$argument
done
"""
# Imports all that can be imported, and names what is missing for the rest.
IMPORT_ALL = """
import importlib, pkgutil, vllm_qllm

imported = []
for module in pkgutil.walk_packages(vllm_qllm.__path__, "vllm_qllm.", onerror=lambda name: None):
    try:
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
            imported.append(module.name)
    except ModuleNotFoundError as error:
        assert error.name.partition(".")[0] != "vllm_qllm", error
print(*imported)
"""


@pytest.fixture(scope="session")
def tracked() -> frozenset[str]:
    """Files that belong to the tree."""
    command = ["git", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a checkout: what belongs to the tree is not known")
    return frozenset(name for name in listed.stdout.split("\0") if (ROOT / name).is_file())


def copied(tracked: frozenset[str], copy: Path) -> Path:
    """A copy of the tree, and what a used tree holds besides."""
    for name in tracked:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, copy / name)
    for left in (
        KERNEL,
        "csrc/build/lib/old.so",
        "csrc/vllm_qllm_cpu.egg-info/SOURCES.txt",
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


@pytest.fixture
def tree(tracked: frozenset[str], tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return copied(tracked, tmp_path / "tree")


@pytest.fixture(scope="module")
def packed(tracked: frozenset[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The source distributions of the tree by name, and the wheel as "wheel"."""
    tree = copied(tracked, tmp_path_factory.mktemp("packed") / "tree")
    for directory in (tree, tree / "csrc"):
        done = setup(directory, "sdist", "--formats", "gztar", "--dist-dir", str(tree / "dist"))
        assert done.returncode == 0, done.stderr
    done = setup(tree, "bdist_wheel")
    assert done.returncode == 0, done.stderr
    (package,) = (tree / "dist").glob("vllm_qllm-*.tar.gz")
    (kernel,) = (tree / "dist").glob("vllm_qllm_cpu-*.tar.gz")
    (wheel,) = (tree / "dist").glob("*.whl")
    return {"vllm-qllm": package, "vllm-qllm-cpu": kernel, "wheel": wheel}


@pytest.fixture
def compiler(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Gives the environment of a build for a torch, with a compiler that is there, or is not."""
    torch, program = tmp_path / "site/torch", tmp_path / "g++"
    torch.mkdir(parents=True)
    (torch / "__init__.py").touch()
    program.write_text(COMPILER)
    program.chmod(0o755)

    def environment(version: str, works: bool = True) -> dict[str, str]:
        named = ("CC", "CXX", "LDSHARED", "LDCXXSHARED")
        names = dict.fromkeys(named, str(program) if works else "no-such-compiler")
        return {"PYTHONPATH": str(torch.parent), "TORCH": version, **names}

    return environment


def setup(
    directory: Path, *arguments: str, python: str = sys.executable, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run setup.py there."""
    return subprocess.run(
        [python, "-W", "error::DeprecationWarning:setuptools", "setup.py", *arguments],
        cwd=directory,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def files(archive: Path) -> set[str]:
    """What a source distribution holds of the tree, below its directory."""
    with tarfile.open(archive) as file:
        names = {m.name.partition("/")[2] for m in file.getmembers() if m.isfile()}
    return {n for n in names if n not in ("PKG-INFO", "setup.cfg") and ".egg-info/" not in n}


def metadata(wheel: Path) -> email.message.Message:
    """What a wheel says of itself."""
    with zipfile.ZipFile(wheel) as file:
        (name,) = (n for n in file.namelist() if n.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(file.read(name))


def test_the_source_distributions_are_the_tree(
    packed: dict[str, Path], tracked: frozenset[str]
) -> None:
    assert files(packed["vllm-qllm"]) == tracked
    kernel = {name.removeprefix("csrc/") for name in tracked if name.startswith("csrc/")}
    assert files(packed["vllm-qllm-cpu"]) == kernel


def test_the_wheel_is_all_of_the_package_and_for_every_machine(
    packed: dict[str, Path], tracked: frozenset[str]
) -> None:
    wheel = packed["wheel"]
    assert wheel.name == f"vllm_qllm-{vllm_qllm.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as file:
        found = {name for name in file.namelist() if ".dist-info/" not in name}
    assert found == {name for name in tracked if name.startswith("vllm_qllm/")}


def test_the_version_is_in_one_place(tracked: frozenset[str]) -> None:
    version = re.compile(rf"(?<![\d.]){re.escape(vllm_qllm.__version__)}(?![\d.])")
    sources = (n for n in tracked if n.endswith((".py", ".toml", "Makefile", "Dockerfile")))
    places = {n for n in sources if version.search((ROOT / n).read_text())}
    ours = {n for n in places if not n.startswith(("tests/", "benchmarks/"))}
    # It also says before which release kernels did not say theirs.
    assert ours - {"vllm_qllm/kernels/moe/cpu_library.py"} == {"vllm_qllm/__init__.py"}


@pytest.mark.parametrize("distribution", ["wheel", "vllm-qllm"])
def test_it_installs_without_torch_and_without_a_compiler(
    distribution: str, packed: dict[str, Path], tmp_path: Path
) -> None:
    """Where there is nothing at all; all that needs no other package can be imported there."""
    empty = Environment(tmp_path / "empty")
    done = empty.install(packed[distribution], path="")
    assert done.returncode == 0, done.stderr
    done = empty.run("-c", IMPORT_ALL)
    assert done.returncode == 0, done.stderr
    policy = (ROOT / "vllm_qllm/policy").glob("[!_]*.py")
    assert {f"vllm_qllm.policy.{path.stem}" for path in policy} < set(done.stdout.split())
    report = empty.verify()
    assert report["status"] == 1 and report["versions"]["vllm-qllm"] == vllm_qllm.__version__
    said = {f["name"]: f["detail"] for f in report["findings"]}
    assert said["entry point"].endswith("qllm = vllm_qllm.plugin:register")
    assert said["vLLM"].startswith("vLLM is not installed; this release supports")
    assert "vllm is not installed" in said["expert kernel"]


def test_the_kernel_is_a_wheel_of_one_library(
    packed: dict[str, Path], compiler: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    with tarfile.open(packed["vllm-qllm-cpu"]) as file:
        file.extractall(tmp_path, filter="data")
    (source,) = tmp_path.glob("vllm_qllm_cpu-*")
    done = setup(source, "bdist_wheel", **compiler("1"))
    assert done.returncode == 0, done.stderr
    (wheel,) = source.glob("dist/*.whl")
    release = vllm_qllm.__version__
    assert wheel.name == f"vllm_qllm_cpu-{release}-py3-none-linux_x86_64.whl"
    with zipfile.ZipFile(wheel) as file:
        assert {n for n in file.namelist() if ".dist-info/" not in n} == {KERNEL}
    assert metadata(wheel).get_all("Requires-Dist") == [f"vllm-qllm=={release}"]


@pytest.mark.parametrize(("command", "fails"), [("bdist_wheel", True), ("editable_wheel", False)])
def test_why_there_is_no_kernel_is_said(
    command: str,
    fails: bool,
    tree: Path,
    compiler: Callable[..., dict[str, str]],
    tmp_path: Path,
) -> None:
    """A distribution of nothing else fails, a tree that can do without it is installed."""
    directory = tree / "csrc" if fails else tree
    alone = tmp_path / "alone"
    alone.mkdir()
    packages = Path(setuptools.__file__).parents[1]
    for path in (*packages.glob("setuptools*"), packages / "_distutils_hack"):
        (alone / path.name).symlink_to(path)
    python = str(Environment(tmp_path / "empty").python)
    done = setup(directory, command, python=python, PYTHONPATH=str(alone))
    assert "not built: torch is not installed here" in done.stderr
    assert bool(done.returncode) == fails and "Traceback" not in done.stderr
    assert (tree / KERNEL).exists()
    done = setup(directory, command, **compiler("1", works=False))
    assert "not built: the compiler failed" in done.stderr
    assert bool(done.returncode) == fails and "Traceback" not in done.stderr
    # One that was built in the tree for another torch is not kept.
    assert (tree / KERNEL).exists() == fails
    assert not list(directory.rglob("dist/*_cpu*.whl"))


def test_nothing_of_an_earlier_build_is_installed(
    tree: Path, compiler: Callable[..., dict[str, str]]
) -> None:
    """With another torch, and then with none that can be built for; the tree stays as it is."""
    built = []
    for version in ("1", "2"):
        for directory in (tree, tree / "csrc"):
            done = setup(directory, "build", **compiler(version))
            assert done.returncode == 0, done.stderr
        libraries = (tree / "csrc/build").rglob("*_moe_cpu.so")
        built.append([path.read_text().strip() for path in libraries])
        (tree / f"vllm_qllm/added_{version}.py").touch()
        (tree / f"vllm_qllm/added_{int(version) - 1}.py").unlink(missing_ok=True)
    assert built == [["1"], ["2"]]
    assert {path.name for path in (tree / "build").rglob("added*")} == {"added_1.py"}
    assert not list((tree / "build").rglob("*.so"))
    assert (tree / KERNEL).read_text() == "left over"


def test_an_editable_install_has_the_kernel_in_the_tree(
    tree: Path, compiler: Callable[..., dict[str, str]]
) -> None:
    done = setup(tree, "editable_wheel", **compiler("1"))
    assert done.returncode == 0, done.stderr
    assert (tree / KERNEL).read_text().strip() == "1"


@pytest.mark.parametrize("source", [None, "https://example.org/vllm-qllm"])
def test_what_describes_it_elsewhere_needs_no_file_of_the_tree(
    source: str | None, tree: Path
) -> None:
    """A package index shows it without the tree: pictures and links lead to the source, or not."""
    if source:
        with (tree / "pyproject.toml").open("a") as file:
            file.write(f'\n[project.urls]\nSource = "{source}"\n')
    done = setup(tree, "bdist_wheel")
    assert done.returncode == 0, done.stderr
    (wheel,) = (tree / "dist").glob("*.whl")
    described = metadata(wheel)
    assert described["Description-Content-Type"] == "text/markdown"
    text = str(described.get_payload())
    assert text.startswith("# vllm-qllm") and "## Quick start" in text
    links = re.findall(r"\]\(([^)]*)", text)
    assert links and all(re.match(r"https?://|#", link) for link in links)
    readme = (tree / "README.md").read_text()
    pictures = [link for link in re.findall(r"!\[[^\]]*\]\(([^)]*)", readme) if ":" not in link]
    assert pictures
    for picture in pictures:
        release = f"v{vllm_qllm.__version__}"
        assert (f"{source}/raw/{release}/{picture}" in links) == bool(source)


@pytest.mark.parametrize("directory", [".", "csrc"])
def test_a_setuptools_that_is_too_old_is_named(directory: str, tree: Path, tmp_path: Path) -> None:
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
        cwd=tree / directory,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert "allowed: 77 or newer" in done.stderr and "Traceback" not in done.stderr
