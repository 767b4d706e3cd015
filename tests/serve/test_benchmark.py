# SPDX-License-Identifier: Apache-2.0
"""The benchmark's own command path against a real server: a load, its record, resuming, causes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.load.arrivals import Poisson
from benchmarks.load.drive import Times
from benchmarks.load.lengths import Fixed
from benchmarks.load.streams import ClosedLoop, Replay, open_loop
from benchmarks.load.traces import Traces
from benchmarks.measurement.equality import Sample
from benchmarks.measurement.matrix import Setup, cells
from benchmarks.measurement.progress import Progress
from benchmarks.record import record
from benchmarks.record.record import BE, LS, Record
from benchmarks.record.summary import of_class
from benchmarks.run import run
from benchmarks.scenarios.scenario import Scenario, Variant
from benchmarks.systems.server import free_port
from tests.serve.server import Server

pytestmark = pytest.mark.server

TIMES = Times(warm_up=0.5, seconds=2.5, drain=20.0)
URGENT = open_loop(LS, Poisson(4.0), Fixed(32, 4))
BATCH = ClosedLoop(BE, 2, Fixed(600, 8))
# Longer than the server's longest model length.
TOO_LONG = ClosedLoop(BE, 1, Fixed(4000, 8))
RECORDED = Replay(BE, "nowhere.csv", 1.0, 1.0, 1.0, 1000, 10)


def scenario(name: str, *streams: object) -> Scenario:
    return Scenario(name, "?", (Variant(streams),), ("strict",))  # type: ignore[arg-type]


def measured(chosen: Scenario, setup: Setup, out: Path) -> Record:
    """Run one scenario under strict; what its file says."""
    (path,) = run(cells([chosen]), setup, out, Progress(), out / "logs")
    return record.load(path)


@pytest.fixture
def setup(server: Server, tiny_model: Path, tmp_path: Path) -> Setup:
    sample = Sample(((LS, 2), (BE, 1)))
    files = Traces(tmp_path)
    url, timelines = f"{server.url}/v1", tmp_path / "timelines"
    return Setup(
        tiny_model,
        (),
        times=TIMES,
        files=files,
        sample=sample,
        url=url,
        timelines=timelines,
    )


def test_a_run_leaves_every_requests_tokens_and_the_engines_counters(
    setup: Setup, tmp_path: Path
) -> None:
    found = measured(scenario("both", URGENT, BATCH), setup, tmp_path)
    assert found.status == "ok", found.cause
    assert found.seconds == 2.5
    for kind, output in ((LS, 4), (BE, 8)):
        done = [r for r in found.of(kind) if r.outcome == "ok"]
        assert done
        assert all(len(r.tokens) == output for r in done)
        assert all(r.scheduled <= r.sent < r.tokens[0] <= r.tokens[-1] <= r.end for r in done)  # type: ignore[operator]
        assert of_class(found, kind).failed == 0
        generated = f'qllm_generated_tokens_total{{class="{CLASSES[kind]}"}}'
        assert found.after[generated] > found.before.get(generated, 0.0)
    assert len(found.responses[LS]) == pytest.approx(len(found.inside(LS)), abs=2)
    assert all(0.0 < seconds < 10.0 for seconds in found.responses[LS])
    (document,) = (tmp_path / "timelines").rglob("*.json")
    assert json.loads(document.read_text())["format"] == "vllm-qllm timeline"
    # The model is float32, in which no batch changes a token.
    assert found.equality[LS].equal == len(found.equality[LS].numbers) == 2
    assert found.equality[BE].equal == len(found.equality[BE].numbers) == 1
    assert {r.priority for r in found.of(LS)} == {0}
    assert {r.priority for r in found.of(BE)} == {10}

    (path,) = (tmp_path / "both").glob("*.json")
    before = path.stat().st_mtime_ns
    assert measured(scenario("both", URGENT, BATCH), setup, tmp_path) == found
    assert path.stat().st_mtime_ns == before, "a finished run was run again"


CLASSES = {LS: "latency_sensitive", BE: "best_effort"}


def test_requests_that_fail_are_in_the_record_with_the_servers_words(
    setup: Setup, tmp_path: Path
) -> None:
    short = replace(setup, times=Times(0.1, 1.0, 5.0))
    found = measured(scenario("failing", TOO_LONG), short, tmp_path)
    be = of_class(found, BE)
    assert be.failed == be.requests > 0
    (error,) = be.errors
    assert "HTTP 400" in error
    assert "2048" in error


def test_a_missing_trace_is_the_cause_of_a_failed_run(setup: Setup, tmp_path: Path) -> None:
    found = measured(scenario("recorded", URGENT, RECORDED), setup, tmp_path)
    assert found.status == "failed"
    assert "nowhere.csv: No such file" in (found.cause or "")


def test_an_unreachable_server_is_the_cause_of_a_failed_run(setup: Setup, tmp_path: Path) -> None:
    gone = replace(setup, url=f"http://127.0.0.1:{free_port()}/v1")
    found = measured(scenario("gone", URGENT), gone, tmp_path)
    assert found.status == "failed"
    assert "Connection refused" in (found.cause or "")


def test_a_system_that_does_not_start_is_tried_once_and_fails_with_the_end_of_its_log(
    setup: Setup, tmp_path: Path
) -> None:
    broken = replace(setup, url=None, common=("--max-model-len", "no-number"))
    two = [scenario("one", URGENT), scenario("two", URGENT)]
    found = list(map(record.load, run(cells(two), broken, tmp_path, Progress(), tmp_path / "logs")))
    assert [r.status for r in found] == ["failed", "failed"]
    assert "no-number" in (found[0].cause or "")
    assert found[1].cause == found[0].cause
