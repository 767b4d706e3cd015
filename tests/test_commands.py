# SPDX-License-Identifier: Apache-2.0
"""What workflows, hooks and documents tell to make can be made."""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
CI = ROOT / ".ci/run"
HOOKS = ROOT / ".pre-commit-config.yaml"
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks").rglob("*.md")]
)


def jobs(workflow: Path) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """Jobs, and the command lines of each; those of .ci/run among them, where a job runs it."""
    for job in yaml.safe_load(workflow.read_text())["jobs"].values():
        lines = [line for step in job["steps"] for line in step.get("run", "").splitlines()]
        yield job, lines + (CI.read_text().splitlines() if ".ci/run" in lines else [])


def commands(path: Path) -> Iterator[str]:
    """The command lines in a file."""
    text = path.read_text()
    if path in WORKFLOWS:
        for _, lines in jobs(path):
            yield from lines
    elif path == HOOKS:
        yield from (
            hook["entry"] for repo in yaml.safe_load(text)["repos"] for hook in repo["hooks"]
        )
    elif path.suffix == ".md":
        yield from re.findall(r"`([^`\n]+)`", text)
        yield from re.findall(r"^    (.+)$", text, re.MULTILINE)
    else:
        yield from text.splitlines()


def targets(command: str) -> Iterator[str]:
    """What a command line asks make for."""
    if not (
        told := re.search(r"(?:^|&&|exec )\s*make\s(.*)", re.sub(r"\$\{\{.*?\}\}", "x", command))
    ):
        return
    for word in told[1].partition("#")[0].split():
        if word in (">", ">>", "|", "&&", "||", ";"):
            return
        if not word.startswith("-") and "=" not in word:
            yield word


@cache
def can_be_made(target: str) -> bool:
    done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True)
    return done.returncode == 0


@pytest.mark.parametrize(
    "path",
    [*WORKFLOWS, HOOKS, CI, *PAGES],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_what_is_made_can_be_made(path: Path) -> None:
    asked = [target for command in commands(path) for target in targets(command)]
    if path.suffix != ".md":
        assert asked
    assert not [target for target in asked if not can_be_made(target)]


def test_what_cannot_be_made_is_noticed() -> None:
    assert list(targets("make --keep-going lint nothing PY=x | tee log")) == ["lint", "nothing"]
    assert can_be_made("lint") and not can_be_made("nothing")


def test_help_names_what_can_be_made() -> None:
    makefile = (ROOT / "Makefile").read_text().replace("\\\n", "")
    phony = set(re.search(r"^\.PHONY:(.*)$", makefile, re.MULTILINE)[1].split())  # type: ignore[index]
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    named = {target for line in done.stdout.splitlines() for target in [*targets(line)][:1]}
    assert named | {"help"} == phony


def test_packages_are_made_on_every_python_that_they_are_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = "Programming Language :: Python :: 3."
    pythons = [c.rpartition(" ")[2] for c in project["classifiers"] if c.startswith(named)]
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    assert workflow["jobs"]["package"]["strategy"]["matrix"]["python"] == pythons
    kernel = tomllib.loads((ROOT / "csrc/pyproject.toml").read_text())["project"]
    assert kernel["requires-python"] == project["requires-python"]


def test_the_browser_of_the_tests_is_debian_s() -> None:
    """Ubuntu has no package of it, and no `make test` without it."""
    need = {"test", "test-all", "test-deploy", "deploy-tools", "compatibility"}
    for job, lines in [job for workflow in WORKFLOWS for job in jobs(workflow)]:
        if need & {target for line in lines for target in targets(line)}:
            assert job["container"]["image"].startswith("debian:")
