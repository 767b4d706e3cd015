# SPDX-License-Identifier: Apache-2.0
"""Result files: what is written is read again, what is not a result is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.record.record import BadRecord, Equality, failed, load, load_all, path_of, save
from tests.benchmarks.records import record, request


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    run = record(
        "strict",
        request(0, 11.0, 0.25, (10.5, 0.0, 3.0)),
        request(1, 12.0, None, outcome="failed", error='a "quoted"\nmessage'),
        request(2, 13.0, 0.5, priority=None),
        point=1.5,
        before={'a{b="c"}': 1.0},
        responses={"LS": [0.001]},
        equality={"LS": Equality([0], 1), "BE": Equality(cause="idle")},
    )
    path = save(run, tmp_path)
    assert path == path_of(tmp_path, run) == tmp_path / "mix" / "strict-1.5-0.json"
    assert load(path) == run
    assert list(tmp_path.rglob("*.part")) == []


def test_each_request_is_a_line(tmp_path: Path) -> None:
    path = save(record("s", *(request(i, 11.0 + i, 0.1) for i in range(3))), tmp_path)
    assert sum('"scheduled"' in line for line in path.read_text().splitlines()) == 3


def test_rounds_points_and_systems_have_files_of_their_own(tmp_path: Path) -> None:
    runs = [record("a"), record("b"), record("a", point=1.0), record("a", round=1)]
    assert len({save(run, tmp_path) for run in runs}) == 4
    assert sorted(r.system for r in load_all([tmp_path])) == ["a", "a", "a", "b"]


def test_a_failed_run_keeps_its_cause(tmp_path: Path) -> None:
    again = load(save(failed(record("s"), "no answer"), tmp_path))
    assert (again.status, again.cause) == ("failed", "no answer")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"format": 99}', "format 99; this program reads format 1"),
        ("[]", "format None"),
        ("{", "bad.json"),
        ('{"format": 1, "scenario": "x"}', r"missing required field `system`"),
    ],
)
def test_what_is_no_result_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(BadRecord, match=message) as error:
        load(path)
    assert "bad.json" in str(error.value)


def test_a_missing_file_and_an_empty_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadRecord, match=r"gone.json: No such file"):
        load_all([tmp_path / "gone.json"])
    with pytest.raises(BadRecord, match="no results"):
        load_all([tmp_path])
