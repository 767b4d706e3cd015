# SPDX-License-Identifier: Apache-2.0
"""Traces and cost files: what they mean, and what is said of those that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.capacity.fleets import COST
from vllm_qllm.capacity import trace
from vllm_qllm.capacity.cost import Cost
from vllm_qllm.capacity.errors import CapacityError
from vllm_qllm.capacity.workload import scaled

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


def test_an_azure_trace(tmp_path: Path) -> None:
    path = tmp_path / "conv.csv"
    rows = ["2023-11-16 23:59:59.5000000,374,44", "2023-11-17 00:00:01.2500001,396,0"]
    path.write_text(AZURE + "\n".join(rows))
    first, second = trace.read(path, 1)
    assert first == (0.0, 1, 374, 44)
    assert second[0] == pytest.approx(1.7500001, abs=1e-6)
    assert second[1:] == (1, 396, 1)


def test_a_mooncake_trace(tmp_path: Path) -> None:
    path = tmp_path / "mooncake.jsonl"
    lines = [
        {"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46]},
        {"timestamp": 30535, "input_length": 6472, "output_length": 26, "hash_ids": [47]},
    ]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    assert trace.read(path, 0) == [(0.0, 0, 6955, 52), (pytest.approx(3.053), 0, 6472, 26)]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", None, "cannot read the trace"),
        ("a.csv", AZURE, "empty"),
        ("a.csv", "time,in,out\n1,2,3\n", "TIMESTAMP, ContextTokens, GeneratedTokens"),
        ("a.csv", AZURE + "2023-11-16 18:17:03,many,10\n", "a.csv:2 holds"),
        ("a.csv", AZURE + "yesterday,4,10\n", "a.csv:2 holds"),
        ("a.csv", AZURE + "2023-11-16 18:17:03,-4,10\n", "0 or more"),
        ("a.jsonl", '{"timestamp": 1', "a.jsonl:1 is no JSON"),
        ("a.jsonl", "[1, 2]", "an object"),
        ("a.jsonl", '{"timestamp": 1, "input_length": 4}', "a.jsonl:1 holds"),
    ],
)
def test_a_bad_trace_is_named(tmp_path: Path, name: str, text: str | None, said: str) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(CapacityError) as error:
        trace.read(path, 0)
    assert said in str(error.value)
    assert name in str(error.value)


def test_a_trace_is_scaled_in_requests_and_lengths() -> None:
    given = [(float(i), 0, 100, 10) for i in range(1000)]
    more = scaled(given, 2.5, 0.5, "seed")
    assert len(more) == pytest.approx(2500, rel=0.05)
    assert {row[2:] for row in more} == {(50, 5)}
    assert more == sorted(more) == scaled(given, 2.5, 0.5, "seed")
    assert more[-1][0] <= 999.0
    assert len(scaled(given, 0.2, 1.0, "seed")) == pytest.approx(200, rel=0.2)


def test_costs_survive_a_file(tmp_path: Path) -> None:
    COST.save(tmp_path / "cost.json")
    assert Cost.load(tmp_path / "cost.json") == COST
    assert "seconds" in json.loads((tmp_path / "cost.json").read_text())["units"]["context_s"]


def test_a_step_s_cost_is_linear_between_the_measured_sizes() -> None:
    table = COST.table(4096)
    assert table[1] == 0.02
    assert table[5] == pytest.approx(0.026)
    assert table[2048] == pytest.approx(1.2)
    assert table[4096] == pytest.approx(1.2 + 2048 * (1.2 - 0.06) / (2048 - 64))
    assert table == sorted(table)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"step": [[1, 0.1]]}, "two or more pairs"),
        ({"step": [[1, 0.1], [2, 0.05]]}, "both rising"),
        ({"step": 3}, "a list of [tokens, seconds]"),
        ({"overhead_s": -1}, "overhead_s is -1"),
        ({"overhead_s": "1"}, "overhead_s is '1'"),
        ({"noise": 2.0}, "noise is 2.0"),
        ({"stretch_s": 0}, "stretch_s is 0"),
        ({"layers": 0}, "layers is 0"),
        ({"kv_blocks": 0.5}, "kv_blocks is 0.5"),
        ({"context": 1}, "field is 'context'"),
        ({"format": 7}, "format is 7"),
    ],
)
def test_a_bad_cost_file_is_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path = tmp_path / "cost.json"
    path.write_text(json.dumps(COST.to_dict() | change))
    with pytest.raises(CapacityError) as error:
        Cost.load(path)
    assert said in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_no_cost_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "cost.json"
    path.write_text(text)
    with pytest.raises(CapacityError, match=r"cost\.json"):
        Cost.load(path)
