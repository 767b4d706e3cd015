# SPDX-License-Identifier: Apache-2.0
"""The ledger names every seam once, gives reasons, and is what README.md shows."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from patches import ledger, make
from vllm_qllm import seams


def test_it_names_exactly_the_seams() -> None:
    named = Counter(target for patch in ledger.read() for target in patch.seams)
    assert named == Counter(map(str, seams.ALL))


def test_every_patch_says_why_and_when_it_can_go() -> None:
    for patch in ledger.read():
        assert patch.why and patch.can_go and patch.subject and patch.slug
        assert len(patch.subject) <= 72
        assert set(patch.borrowed) <= set(patch.seams)
        for entry in patch.upstream:
            assert re.fullmatch(r"[\w.-]+/[\w.-]+#\d+", entry.at), entry.at
            assert entry.says


def test_the_readme_shows_it() -> None:
    assert make.README.read_text() == make.readme(), "run `make patches`"
    table = ledger.table(ledger.read())
    assert table in make.README.read_text()
    for seam in seams.ALL:
        assert f"`{seam}`: {seam.why}" in table


def test_a_name_that_is_no_seam_is_refused() -> None:
    with pytest.raises(LookupError, match="names vllm_gone"):
        ledger.seam_named("vllm_gone")


def test_no_diff_is_left_over() -> None:
    assert sorted(p.name for p in make.DIFFS.iterdir()) == [p.name for p in ledger.read()]
