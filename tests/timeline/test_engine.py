# SPDX-License-Identifier: Apache-2.0
"""What a real engine with scripted suspensions did is what its timeline says."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import pytest

from tests.engine.scripted import BE, LS, EngineFor, ScriptedEngine, stop_everywhere
from tests.engine.test_suspension import at_suspension
from tests.engine.test_token_equality import prompt
from tests.timeline.trace_rules import check, named
from vllm_qllm.metrics import location
from vllm_qllm.timeline.chrome import trace
from vllm_qllm.timeline.document import document
from vllm_qllm.timeline.response import response_times

pytestmark = pytest.mark.model

LAYERS = 4
TWO_CLASSES: list[dict[str, Any]] = [
    {"name": "latency_sensitive", "max_priority": 0},
    {"name": "best_effort"},
]
Event = dict[str, Any]


def engine_with(engine_for: EngineFor, **priority: Any) -> ScriptedEngine:
    # However slow the machine is, nothing becomes overdue.
    patient = {"max_wait_ms": 3_600_000}
    classes = priority.pop("classes", TWO_CLASSES)
    config = {"timeline": 8192, "classes": [c | patient for c in classes]} | priority
    engine = engine_for(priority_config=stop_everywhere() | config)
    time.sleep(0.002)  # what the engine before it did is over
    return engine


def recorded(since: float) -> dict[str, Any]:
    """The timeline from ``since`` on, ``time.monotonic()`` seconds."""
    prepared = location.prepared()
    assert prepared is not None and prepared.timeline
    return document(prepared.prefix, time.monotonic() - since)


def events(found: dict[str, Any], kind: str, **fields: Any) -> list[Event]:
    (engine,) = found["engines"]
    return [
        e
        for e in engine["events"]
        if e["kind"] == kind and all(e[k] == v for k, v in fields.items())
    ]


@pytest.mark.covers("Timeline", "eager", suspended=True)
def test_a_suspended_step_and_what_nested_in_it(engine_for: EngineFor) -> None:
    engine = engine_with(engine_for)
    looks, began = engine.suspensions, time.monotonic()
    slow = engine.add(prompt(1, 250), 1, BE)
    fast: list[str] = []
    at_suspension(engine, 2, lambda: fast.append(engine.add(prompt(2, 30), 3, LS)))
    engine.run()
    found = recorded(began)
    steps = events(found, "step_started")
    assert [(s["class"], s["depth"], s["tokens"]) for s in steps] == [
        ("best_effort", 0, 250),
        ("latency_sensitive", 1, 30),
        ("latency_sensitive", 1, 1),
        ("latency_sensitive", 1, 1),
    ]
    assert [s["decode_rows"] for s in steps] == [0, 0, 1, 1]
    outer = steps[0]["step"]
    # Every yield point: each layer once, in order.
    suspended = events(found, "step_suspended", step=outer)
    places = [(s["yield_point"], s["layer"], s["where"]) for s in suspended]
    assert places == [(n + 1, n, "before attention") for n in range(LAYERS)]
    assert {s["by"] for s in suspended} == {"budget"}, "the script's steps have no time at all"
    # The script counts looks for new requests: one a suspension, and one after each nested step.
    assert engine.suspensions - looks == len(suspended) + len(steps[1:])
    # The nested steps lie between the second suspension and the resumption that follows.
    stopped, resumed = suspended[1], events(found, "step_resumed", step=outer)[1]
    for step in steps[1:]:
        (ended,) = events(found, "step_finished", step=step["step"])
        assert stopped["time"] <= step["time"] <= ended["time"] <= resumed["time"]
    ids = {e["id"]: e for e in events(found, "request_arrived")}
    assert ids[slow]["prompt_tokens"] == 250 and ids[slow]["max_tokens"] == 1
    assert ids[fast[0]]["class"] == "latency_sensitive"
    engine.reset()


def test_the_trace_nests_as_the_steps_did(engine_for: EngineFor) -> None:
    classes = [
        {"name": "chat", "max_priority": 0},
        {"name": "agent", "max_priority": 10},
        {"name": "batch"},
    ]
    engine = engine_with(engine_for, classes=classes)
    looks, began = engine.suspensions, time.monotonic()
    ids: dict[int, str] = {}

    def arrive() -> None:
        depth = len(engine.core.scheduler.flight.suspended)
        for priority, at in ((10, 1), (0, 2)):
            if depth == at and priority not in ids:
                ids[priority] = engine.add(prompt(at, 100), 3, priority)

    engine.add(prompt(3, 250), 3, 20)
    engine.on_suspended = arrive
    engine.run()
    found = recorded(began)
    shown = trace(found)
    tracks = check(shown)
    layers = [named(shown, ": steps", name) for name in ("steps", "nested 1 deep", "nested 2 deep")]
    whole = [[e for e in tracks[t] if e["cat"] == "step"] for t in layers]
    pauses = [[e for e in tracks[t] if e["cat"] == "suspended"] for t in layers]
    assert all(whole)
    nested = len(whole[1]) + len(whole[2])
    assert sum(map(len, pauses)) == engine.suspensions - looks - nested
    for depth in (1, 2):
        for step in whole[depth]:
            over = [p for p in pauses[depth - 1] if _inside(step, p)]
            assert len(over) == 1, f"{step} does not run within one suspension of another"
            assert over[0]["args"]["class"] != step["args"]["class"]
    assert {s["args"]["class"] for s in whole[2]} == {"chat"}
    counts = Counter(e["name"] for e in shown["traceEvents"] if e["ph"] == "C")
    assert {name for name in counts if ":" not in name} == {"chat", "agent", "batch"}
    most = max(e["args"].get("suspended", 0) for e in shown["traceEvents"] if e["ph"] == "C")
    assert most == 1
    for cls, request in (("chat", ids[0]), ("agent", ids[10])):
        row = tracks[named(shown, f"requests, {cls}", f"{cls} 1")]
        assert [e["name"] for e in row] == [request, "waiting", "prefill", "decode"]
        assert row[0]["dur"] == pytest.approx(sum(e["dur"] for e in row[1:]), abs=0.01)
    engine.reset()


def _inside(inner: Event, outer: Event) -> bool:
    begin, end = outer["ts"], outer["ts"] + outer["dur"]
    return bool(begin <= inner["ts"] + 0.001 and inner["ts"] + inner["dur"] <= end + 0.001)


def test_yield_points_among_experts_are_named(engine_for: EngineFor) -> None:
    engine = engine_with(engine_for, yield_points="expert")
    began = time.monotonic()
    engine.add(prompt(1, 250), 1, BE)
    engine.run()
    suspended = events(recorded(began), "step_suspended")
    assert [s["yield_point"] for s in suspended] == list(range(1, len(suspended) + 1))
    for layer in range(LAYERS):
        own = [s["where"] for s in suspended if s["layer"] == layer]
        assert own[:3] == ["before attention", "after attention", "experts"]
        assert set(own[3:]) <= {"experts"}
    assert [s["layer"] for s in suspended] == sorted(s["layer"] for s in suspended)
    engine.reset()


def test_times_are_those_of_the_metrics(engine_for: EngineFor) -> None:
    engine = engine_with(engine_for)
    recorder = engine.core.scheduler.accounting._recorder
    layout, slots = recorder._layout, recorder._slots
    began = time.monotonic()

    def total(name: str, cls: str) -> float:
        metric = next(m for m in layout.metrics if m.name == name)
        return float(slots[layout.offset(name, cls) + len(metric.buckets) + 1])

    names = ("latency_sensitive", "best_effort")
    before = {
        (m, c): total(m, c)
        for m in ("qllm_response_seconds", "qllm_end_to_end_seconds", "qllm_suspended_seconds")
        for c in names
    }
    engine.add(prompt(1, 250), 3, BE)
    engine.add(prompt(4, 90), 2, BE)
    at_suspension(engine, 3, lambda: engine.add(prompt(2, 30), 4, LS))
    engine.run()
    found = recorded(began)
    responses = response_times(found)
    assert [len(responses[c]) for c in names] == [1, 2]
    for cls in names:
        added = {m: total(m, c) - n for (m, c), n in before.items() if c == cls}
        assert sum(responses[cls]) == pytest.approx(added["qllm_response_seconds"], abs=1e-6)
        lives = [
            end["time"] - begin["time"]
            for end in events(found, "request_finished", **{"class": cls})
            for begin in events(found, "request_arrived", request=end["request"])
        ]
        assert sum(lives) == pytest.approx(added["qllm_end_to_end_seconds"], abs=1e-6)
        stops = events(found, "step_suspended", **{"class": cls})
        goes = events(found, "step_resumed", **{"class": cls})
        paused = sum(e["time"] for e in goes) - sum(e["time"] for e in stops)
        assert paused == pytest.approx(added["qllm_suspended_seconds"], abs=1e-6)
    ends = events(found, "request_finished")
    assert sorted((e["tokens"], e["outcome"]) for e in ends) == [
        (2, "length"),
        (3, "length"),
        (4, "length"),
    ]
    engine.reset()


def test_off_nothing_is_recorded(strict_engine: ScriptedEngine) -> None:
    prepared = location.prepared()
    assert prepared is not None and not prepared.timeline
    assert strict_engine.core.scheduler.accounting._log is None
    assert document(prepared.prefix, 100.0)["engines"] == []
