# SPDX-License-Identifier: Apache-2.0
"""Trace files of both kinds, their scaling, and files that are not as they should be."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.load.streams import Replay
from benchmarks.load.traces import BadTrace, Entry, Traces, read

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 23:59:59.5000000,374,44
2023-11-17 00:00:00.2500001,396,109
2023-11-17 00:00:03.5000000,8790,550
"""
MOONCAKE = """{"timestamp": 27000, "input_length": 6955, "output_length": 52, "hash_ids": [46]}
{"timestamp": 30000, "input_length": 6472, "output_length": 26, "hash_ids": [46, 47]}
"""


@pytest.fixture
def azure(tmp_path: Path) -> Path:
    path = tmp_path / "azure.csv"
    path.write_text(AZURE)
    return path


def test_azure_times_keep_their_seventh_digit_and_cross_midnight(azure: Path) -> None:
    entries = read(azure)
    assert [(e.prompt, e.output) for e in entries] == [(374, 44), (396, 109), (8790, 550)]
    assert [e.at for e in entries] == pytest.approx([0.0, 0.7500001, 4.0], abs=2e-7)


def test_mooncake_times_are_milliseconds(tmp_path: Path) -> None:
    path = tmp_path / "mooncake.jsonl"
    path.write_text(MOONCAKE)
    assert read(path) == (Entry(0.0, 6955, 52), Entry(3.0, 6472, 26))


def test_replay_stretches_time_to_the_rate_and_scales_and_cuts_lengths(azure: Path) -> None:
    # Two gaps in four seconds are half a request a second; at a quarter, time is twice as long.
    replay = Replay("LS", "azure.csv", 0.25, 0.5, 0.1, longest_prompt=4000, longest_output=40)
    jobs = list(replay.jobs(0, 100.0, Traces(azure.parent)))
    assert [job.due for job in jobs] == pytest.approx([0.0, 1.5, 8.0], abs=1e-6)
    assert [(job.prompt, job.output) for job in jobs] == [(187, 4), (198, 11), (4000, 40)]
    assert len(list(replay.jobs(0, 8.0, Traces(azure.parent)))) == 2


def test_the_seed_chooses_the_place_and_every_place_has_the_rate(tmp_path: Path) -> None:
    lines = [f"2023-11-17 00:00:{i * i / 2000:09.6f},{i + 1},1" for i in range(300)]
    (tmp_path / "long.csv").write_text(
        "\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *lines])
    )
    replay = Replay("LS", "long.csv", 2.0, 1.0, 1.0, 10**6, 10**6)
    runs = [list(replay.jobs(seed, 20.0, Traces(tmp_path))) for seed in range(8)]
    assert all(len(run) == 40 for run in runs)
    assert all(run[0].due == 0.0 and run[-1].due < 20.0 for run in runs)
    assert len({run[0].prompt for run in runs}) > 4
    for run in runs:  # neighbours of the file, its shape kept
        assert [job.prompt for job in run] == list(range(run[0].prompt, run[0].prompt + 40))
        first, middle, last = (run[i].due for i in (0, 20, 39))
        assert middle - first < last - middle


def test_a_class_can_be_given_another_trace(azure: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text(MOONCAKE)
    replay = Replay("LS", "azure.csv", 1.0, 1.0, 1.0, 10**6, 10**6)
    jobs = list(replay.jobs(0, 100.0, Traces(azure.parent, {"LS": other})))
    assert [job.prompt for job in jobs] == [6955, 6472]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "TIMESTAMP,ContextTokens\n", "no column GeneratedTokens"),
        ("b.csv", AZURE + "2023-11-17 00:00:04.0,many,1\n", "line 5: .*'many'"),
        ("c.csv", AZURE + "yesterday,1,1\n", "line 5: .*yesterday"),
        ("d.csv", AZURE + "2023-11-17 00:00:04.0\n", "line 5"),
        ("e.csv", AZURE + "2023-11-17 00:00:03.4,1,1\n", "line 5: earlier than the line before"),
        ("f.csv", AZURE + "2023-11-17 00:00:04.0,-1,1\n", "line 5: a length below 0"),
        ("g.csv", "\n".join(AZURE.split("\n")[:2]), "fewer than two requests"),
        ("h.jsonl", '{"timestamp": 1}\n', "line 1: no field 'input_length'"),
        ("i.jsonl", MOONCAKE + "not json\n", "line 3"),
        ("j.jsonl", MOONCAKE + "[1, 2]\n", "line 3"),
        ("k.txt", "1 2 3\n", "not a trace; known are .csv, .jsonl"),
    ],
)
def test_what_is_wrong_with_a_trace_is_said(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(BadTrace, match=message):
        read(path)


def test_a_missing_trace_says_where_traces_are_to_be_had(tmp_path: Path) -> None:
    with pytest.raises(BadTrace, match=r"gone.csv: No such file.*benchmarks/traces/README.md"):
        read(tmp_path / "gone.csv")
