# SPDX-License-Identifier: Apache-2.0
"""What became of KV blocks is what the timeline says."""

from __future__ import annotations

import time

import pytest

from tests.engine.scripted import EngineFor
from tests.kv.spilling import spill_in_turn, spilling, squeeze
from tests.timeline.test_engine import events, recorded
from tests.timeline.trace_rules import check
from vllm_qllm.timeline.chrome import trace

pytestmark = pytest.mark.model

BLOCK = 32
BE_NAME = "best_effort"


@pytest.mark.covers("Timeline", "eager", suspended=True)
def test_spilled_restored_and_parked(
    engine_for: EngineFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = spilling(engine_for, config={"timeline": 2**14})
    spill_in_turn(monkeypatch, [True, False])
    began = time.monotonic()
    grown = squeeze(engine, at=(30, 60))
    found = recorded(began)

    lost = events(found, "request_preempted", **{"class": BE_NAME})
    back = events(found, "request_resumed", **{"class": BE_NAME})
    assert len(lost) == len(back) == grown["preempted"]
    assert sum(e["saved"] for e in back) == grown["saved"]
    assert sum(e["recomputed"] for e in back) == grown["again"]
    for request in {e["request"] for e in lost}:
        ours = [e for e in lost if e["request"] == request]
        then = [e for e in back if e["request"] == request]
        for before, after in zip(ours, then, strict=True):
            assert before["time"] <= after["time"]
            assert after["saved"] + after["recomputed"] == before["computed"]
            assert after["saved"] >= before["spilled"], "what is on the host comes back"
    assert any(e["spilled"] for e in lost) and not all(e["spilled"] for e in lost)

    copies = events(found, "step_copied")
    # What the prefix cache still had was not copied back.
    spilled = sum(-(-e["spilled"] // BLOCK) for e in lost)
    assert 0 < sum(e["restored"] for e in copies) <= spilled
    assert sum(e["offloaded"] for e in copies) >= sum(e["restored"] for e in copies)
    assert all(e["copying"] > 0 and not e["failed"] for e in copies)

    states = events(found, "kv", **{"class": BE_NAME})
    assert any(e["parked_requests"] and e["parked_blocks"] for e in states)
    assert any(e["spilled_bytes"] for e in states)
    last = states[-1]
    assert not (last["parked_requests"] or last["parked_blocks"] or last["spilled_bytes"])

    shown = trace(found)
    spans = [s for track in check(shown).values() for s in track if s["cat"] == "copies"]
    assert len(spans) == len(copies)
    told = [e["name"] for e in shown["traceEvents"] if e["ph"] == "i"]
    assert told.count("preempted") == len(lost) and told.count("resumed") == len(back)
