# SPDX-License-Identifier: Apache-2.0
"""What README and the documents say is there, and README's table and policy are true."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests import platforms
from vllm_qllm.config import PriorityConfig
from vllm_qllm.policy import ClassView, EngineView, Policy, Resume, Run

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks").glob("*.md")]
)


def test_the_table_of_platforms_is_current() -> None:
    assert platforms.written(README) == README, "python -m tests.platforms"


def test_it_can_be_read_in_a_minute() -> None:
    assert len(README.splitlines()) <= 130


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_what_is_linked_is_there(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    gone = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not gone


def test_the_index_names_every_document() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in index, page.name


def test_the_policy_of_the_readme_is_one() -> None:
    (block,) = (b for b in re.findall(r"(?:^    .*\n|^\n)+", README, re.M) if "def plan" in b)
    found: dict[str, Any] = {}
    exec(textwrap.dedent(block), found)
    policy: Policy = found["Unmixed"](PriorityConfig())
    busy, idle = ClassView(1, 1, 0, 0), ClassView(0, 0, 0, 0)
    assert policy.plan(EngineView((idle, busy))) == Run(1)
    assert policy.plan(EngineView((idle, idle))) == Resume()
