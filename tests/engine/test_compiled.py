# SPDX-License-Identifier: Apache-2.0
"""Invariant 1 in compiled mode, which is vLLM's default: yield points are reached there too."""

from __future__ import annotations

import pytest

from tests.engine.scripted import BE, LS, EngineFor
from tests.engine.test_token_equality import assert_same, prompt
from tests.kv.spilling import spill_in_turn, spilling, squeeze


def test_steps_suspend_inside_compiled_graphs(engine_for: EngineFor) -> None:
    engine = spilling(engine_for, enforce_eager=False)
    long, short = prompt(1, 250), prompt(2, 40)
    expected = [engine.alone(long, 6), engine.alone(short, 6)]
    seen: list[int] = []

    def arrive() -> None:
        seen.append(engine.core.scheduler.flight.suspended[-1].yield_point)
        if len(seen) == 2:
            ids.append(engine.add(short, 6, LS))

    ids = [engine.add(long, 6, BE)]
    engine.on_suspended = arrive
    engine.run()
    assert 2 in seen and engine.core.priority_controller.yield_points == 4
    for request_id, reference in zip(ids, expected, strict=True):
        assert_same(engine.results[request_id], reference, request_id)
    engine.reset()


@pytest.mark.covers("KV spilled to the host", "compiled", suspended=True)
def test_spilled_kv_comes_back_to_compiled_graphs(
    engine_for: EngineFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = spilling(engine_for, enforce_eager=False)
    spill_in_turn(monkeypatch, [True, True, False])
    grown = squeeze(engine, at=(30, 60))
    assert grown["saved"] > 0 and grown["again"] > 0 and grown["errors"] == 0, grown
