# SPDX-License-Identifier: Apache-2.0
"""The files that CONTRIBUTING.md sends people to are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
# Of the root, of the package, or of the configuration, as the sentence before says.
BASES = [ROOT, ROOT / "vllm_qllm", ROOT / "vllm_qllm" / "config", ROOT / "tests" / "config"]
PATHS = sorted(set(re.findall(r"`([\w./-]+(?:\.(?:py|md|toml|json|lock|in)|/))`", TEXT)))


@pytest.mark.parametrize("path", [p for p in PATHS if "NAME" not in p and "{" not in p])
def test_each_is_there(path: str) -> None:
    made = path.startswith(".deploy")  # by make
    found = any((base / path).exists() for base in [*BASES, ROOT / "vllm_qllm" / "policy"])
    assert made or found


def test_it_names_some() -> None:
    assert len(PATHS) > 15
