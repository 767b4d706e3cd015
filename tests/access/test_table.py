# SPDX-License-Identifier: Apache-2.0
"""The shared table: a name has one row, for good, in every process that maps the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from vllm_qllm.access import table as module
from vllm_qllm.access.table import NUMBERS, Table, TableFull


def test_rows_are_found_again_and_apart(tmp_path: Path) -> None:
    first, second = Table(tmp_path / "table"), Table(tmp_path / "table")
    names = [("a", str(n)) for n in range(3000)]
    for index, name in enumerate(names):
        with first.locked():
            first.set(first.row(*name), 3, float(index))
    assert [second.numbers(*name)[3] for name in names] == list(map(float, range(3000)))  # type: ignore[index]
    assert second.numbers("a") is None
    assert second.numbers("ab", "c") is None
    first.close()
    with second.locked():
        assert second.get(second.row(*names[7]), 3) == 7
        row = second.row("new")
    assert second.numbers("new") == (0.0,) * NUMBERS
    assert row == second.row("new")


def test_a_full_table_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CAPACITY", 4)
    table = Table()
    for name in "abcd":
        table.row(name)
    with pytest.raises(TableFull, match="4 names"):
        table.row("e")
    assert table.numbers("e") is None
    table.add(table.row("c"), 0, 2)
    assert table.numbers("c") == (2.0, *(0.0,) * (NUMBERS - 1))
