# SPDX-License-Identifier: Apache-2.0
"""The shared table: a name has one row in every process that maps the file."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_qllm.access import counter_table as module
from vllm_qllm.access.counter_table import COUNTS, CounterTable, TableFull


def test_rows_are_found_again_and_apart(tmp_path: Path) -> None:
    first, second = CounterTable(tmp_path / "table"), CounterTable(tmp_path / "table")
    names = [("a", str(n)) for n in range(3000)]
    for index, name in enumerate(names):
        with first.locked():
            first.add(first.row(*name), 3, index)
    assert [second.counts(*name)[3] for name in names] == list(range(3000))  # type: ignore[index]
    assert second.counts("a") is None
    assert second.counts("ab", "c") is None
    first.close()
    with second.locked():
        assert second.count(second.row(*names[7]), 3) == 7
        row = second.row("new")
    assert second.counts("new") == (0,) * COUNTS
    assert row == second.row("new")


def test_it_is_shared_when_its_name_is_gone(tmp_path: Path) -> None:
    """As when somebody cleans the directory of temporary files."""
    first, second = CounterTable(tmp_path / "table"), CounterTable(tmp_path / "table")
    (tmp_path / "table").unlink()
    with first.locked():
        first.add(first.row("a"), 2, 5)
    with second.locked():
        second.add(second.row("a"), 2, 1)
    assert first.counts("a") == second.counts("a") == (0, 0, 6, *(0,) * (COUNTS - 3))


def test_a_full_table_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CAPACITY", 4)
    table = CounterTable()
    for name in "abcd":
        table.row(name)
    with pytest.raises(TableFull, match="all 4 rows"):
        table.row("e")
    assert table.counts("e") is None
    table.add(table.row("c"), 0, 2)
    assert table.counts("c") == (2, *(0,) * (COUNTS - 1))


@given(
    names=st.lists(st.tuples(st.text(max_size=4), st.integers(0, 2)), min_size=1, max_size=40),
    kept=st.sets(st.text(max_size=4), max_size=20),
)
def test_rows_that_are_given_up_leave_the_others_as_they_are(
    names: list[tuple[str, int]], kept: set[str]
) -> None:
    """In a table that is full, where rows are far from where their names would have them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CAPACITY", len({name for name, _ in names}))
        table, other = CounterTable(), {}
        for name, number in names:
            table.add(table.row(name), 5, number)
            table.set_measure(table.row(name), 1, 0.5)
            other[name] = other.get(name, 0) + number
        table.keep([(name,) for name in kept], lambda row: table.count(row, 5) > 1)
        stay = {name: n for name, n in other.items() if name in kept or n > 1}
        assert table.taken() == len(stay)
        for name in other:
            found = table.counts(name)
            assert (None if found is None else found[5]) == stay.get(name)
            if name in stay:
                assert table.measure(table.row(name), 1) == 0.5
        assert number_of_new_rows(table) == len(other) - len(stay)


def number_of_new_rows(table: CounterTable) -> int:
    for number in itertools.count():
        try:
            table.row("new", str(number))
        except TableFull:
            return number
    raise AssertionError


def test_threads_of_one_process_do_not_step_on_each_other(tmp_path: Path) -> None:
    """A lock on a file is the process's: alone it would not keep a second thread out."""
    table = CounterTable(tmp_path / "table")
    entered, left = threading.Event(), threading.Event()

    def hold() -> None:
        with table.locked():
            entered.set()
            left.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    entered.wait(10)
    assert not table._threads.acquire(blocking=False)
    left.set()
    holder.join()
    with table.locked():
        pass
