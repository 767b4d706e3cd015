# SPDX-License-Identifier: Apache-2.0
"""``python -m vllm_qllm.capacity``, as an operator runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.capacity.fleets import COST
from vllm_qllm.capacity import slo
from vllm_qllm.capacity.__main__ import main
from vllm_qllm.capacity.errors import CapacityError

LOAD = ["--poisson", "latency_sensitive=2:64:16", "--poisson", "best_effort=0.5:1500:30"]


@pytest.fixture
def cost(tmp_path: Path) -> str:
    COST.save(tmp_path / "cost.json")
    return str(tmp_path / "cost.json")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit status, output, messages."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["capacity", *arguments])
        try:
            status = main()
        except SystemExit as left:
            status = int(left.code or 0)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_a_plan(cost: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The number of replicas keeps the SLO, and one less does not."""
    slos = ["--slo", "latency_sensitive:ttft=0.3", "--attainment", "0.97"]
    common = ["--cost", cost, *LOAD, "--seconds", "120", *slos[:2], "--json"]
    status, out, _ = run(capsys, "plan", *common, *slos[2:], "--policy", "fcfs", "strict")
    assert status == 0
    found = {row["what"].split(",")[0]: row["replicas"] for row in json.loads(out)}
    assert found["strict"] < found["vLLM fcfs"]
    number = found["vLLM fcfs"]
    sizes = ["--replicas", str(number - 1), str(number)]
    status, out, _ = run(capsys, "simulate", *common, "--policy", "fcfs", *sizes)
    fewer, enough = (row["classes"]["latency_sensitive"] for row in json.loads(out))
    assert fewer["attained"] < 0.97 <= enough["attained"]


def test_a_table_from_a_trace(
    cost: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "code.csv"
    rows = [f"2023-11-16 18:17:{i:02}.5000000,{100 * i + 1},10" for i in range(30)]
    path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "\n".join(rows))
    status, out, _ = run(
        capsys, "simulate", "--cost", cost, "--trace", f"best_effort={path}", "--rate", "3"
    )
    assert status == 0
    header, _, line = out.splitlines()
    assert header.split()[:3] == ["what", "replicas", "class"]
    assert "strict" in line
    assert "best_effort" in line
    assert " 90 " in line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--trace, --poisson or --clients"),
        (["--trace", "best_effort=/nowhere.csv"], "cannot read the trace /nowhere.csv"),
        (["--poisson", "vip=1:2:3", "--seconds", "9"], "latency_sensitive, best_effort"),
        (["--poisson", "best_effort=1:2", "--seconds", "9"], "three numbers"),
        (["--poisson", "best_effort=1:0:3", "--seconds", "9"], "numbers above 0"),
        (LOAD, "--seconds is None"),
        ([*LOAD, "--seconds", "9", "--routing", "dice"], "routing is 'dice'"),
        ([*LOAD, "--seconds", "9", "--policy", "nosuch"], "policy is 'nosuch'"),
        ([*LOAD, "--seconds", "9", "--replicas", "0"], "replicas is 0"),
        ([*LOAD, "--seconds", "9", "--slo", "best_effort:speed=3"], "bound is 'speed'"),
        ([*LOAD, "--seconds", "9", "--max-num-seqs", "4096"], "at most the token budget"),
    ],
)
def test_bad_input_is_named(
    cost: str, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    status, out, err = run(capsys, "simulate", "--cost", cost, *arguments)
    assert status == 2
    assert said in err
    assert not out
    assert "Traceback" not in err


def test_a_plan_that_nothing_keeps(cost: str, capsys: pytest.CaptureFixture[str]) -> None:
    impossible = ["--slo", "latency_sensitive:ttft=0.001", "--most", "3"]
    status, _, err = run(capsys, "plan", "--cost", cost, *LOAD, "--seconds", "20", *impossible)
    assert status == 2
    assert "3 replicas do not keep the SLOs" in err
    status, _, err = run(capsys, "plan", "--cost", cost, *LOAD, "--seconds", "20")
    assert status == 2
    assert "--slo is None" in err


def test_no_server_to_measure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "cost.json")
    status, _, err = run(capsys, "measure", "--url", "http://127.0.0.1:9", "-o", out)
    assert status == 2
    assert "http://127.0.0.1:9 does not answer" in err


@pytest.mark.parametrize("answer", range(1, 40))
def test_the_fewest_replicas_are_found(answer: int) -> None:
    asked: list[int] = []

    def enough(replicas: int) -> bool:
        asked.append(replicas)
        return replicas >= answer

    if answer <= 37:
        assert slo.fewest(enough, 37) == answer
    else:
        with pytest.raises(CapacityError):
            slo.fewest(enough, 37)
    assert len(asked) == len(set(asked)) <= 12


def test_planning_needs_neither_vllm_nor_torch() -> None:
    code = (
        "import sys, vllm_qllm.capacity.__main__\n"
        "print(sorted(m for m in sys.modules if m.partition('.')[0] in ('vllm', 'torch')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"
