# SPDX-License-Identifier: Apache-2.0
"""Durations and deadlines do not know what time it is: a clock that is set changes nothing."""

from __future__ import annotations

import ast
import random
import time
from pathlib import Path

import pytest

import vllm_qllm
from tests.engine.scripted import BE, LS, ScriptedEngine
from tests.engine.test_token_equality import assert_same, prompt
from vllm_qllm.metrics.names import METRICS

# All that the package may take from ``time``: clocks that nobody can set.
STEADY = {"monotonic", "monotonic_ns", "perf_counter", "sleep"}


def unsteady(source: str) -> list[str]:
    """What a module takes from ``time`` and ``datetime`` besides that."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(value=ast.Name(id="time"), attr=name) if name not in STEADY:
                found.append(f"time.{name}")
            case ast.ImportFrom(module="time", names=names):
                found += [f"time.{a.name}" for a in names if a.name not in STEADY or a.asname]
            case ast.ImportFrom(module="datetime"):
                found.append("datetime")
            case ast.Import(names=names):
                found += [a.name for a in names if a.name == "datetime"]
                found += [f"time as {a.asname}" for a in names if a.name == "time" and a.asname]
    return found


@pytest.mark.parametrize(
    "line",
    [
        "import time; time.time()",
        "import time; x = time.time_ns",
        "import time as t",
        "import datetime",
        "from datetime import datetime",
        "from time import time",
        "from time import sleep, ctime",
        "from time import monotonic as now",
    ],
)
def test_the_scan_finds_the_time_of_day(line: str) -> None:
    assert len(unsteady(line)) == 1


def test_only_steady_clocks_are_read() -> None:
    package = Path(vllm_qllm.__file__).parent
    # The capacity model serves nobody; its traces hold times of day, which it reads from files.
    modules = set(package.rglob("*.py")) - set((package / "capacity").rglob("*.py"))
    assert len(modules) > 30
    found = {str(p.relative_to(package)): unsteady(p.read_text()) for p in modules}
    assert {path: sorted(set(names)) for path, names in found.items() if names} == {
        # A Retry-After may be a date; what is waited for it is bounded by a minute.
        "batch/retry.py": ["datetime"],
        # Processor time of a thread, which no clock sets.
        "engine/metered_grammar.py": ["time.thread_time"],
        # Machines have no other clock in common; a jump costs a request the better place.
        "ray/replica.py": ["time.time"],
        "ray/router.py": ["time.time"],
        # Says when the document was made; nothing is worked out from it.
        "status/document.py": ["time.time"],
    }


@pytest.mark.covers("Clock jumps", "eager", suspended=True)
def test_nothing_happens_when_the_clock_jumps(
    strict_engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = strict_engine
    slow, fast = prompt(31, 200), prompt(32, 40)
    expected = [engine.alone(slow, 8), engine.alone(fast, 8)]
    recorder = engine.core.scheduler.accounting._recorder
    layout = recorder._layout
    sums = {  # the last slot of a histogram is the sum of what it was shown
        (metric.name, name): layout.offset(metric.name, name) + layout.width(metric) - 1
        for metric in METRICS
        if metric.kind == "histogram"
        for name in ("latency_sensitive", "best_effort")
    }
    before = {key: recorder._slots[slot] for key, slot in sums.items()}

    real, draw, jumps = time.time, random.Random(7), []

    def jumping() -> float:
        jumps.append(draw.choice((-1e6, 1e6)) * draw.random())
        return real() + jumps[-1]

    began = time.monotonic()
    monkeypatch.setattr(time, "time", jumping)
    ids = [engine.add(slow, 8, BE)]

    def arrive() -> None:
        time.time()
        if engine.suspensions % 3 == 0 and len(ids) < 4:
            ids.append(engine.add(fast, 8, LS))

    engine.suspensions = 0
    engine.on_suspended = arrive
    engine.run()
    took = time.monotonic() - began
    monkeypatch.undo()

    assert engine.suspensions > 8 and len(ids) == 4
    assert len(jumps) > 8
    for number, request_id in enumerate(ids):
        assert_same(engine.results[request_id], expected[min(number, 1)], f"request {number}")
    for key, slot in sums.items():
        grown = recorder._slots[slot] - before[key]
        # Four requests, and one suspension at a time.
        assert 0 <= grown <= 4 * took, key
    assert recorder._slots[sums["qllm_suspended_seconds", "best_effort"]] > 0
    assert recorder._slots[sums["qllm_end_to_end_seconds", "latency_sensitive"]] > 0
