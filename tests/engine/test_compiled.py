# SPDX-License-Identifier: Apache-2.0
"""Invariant 1 in compiled mode, which is vLLM's default: checkpoints are reached there too."""

from __future__ import annotations

from tests.engine.scripted import BE, LS, EngineFor
from tests.engine.test_token_equality import assert_same, prompt


def test_steps_suspend_inside_compiled_graphs(engine_for: EngineFor) -> None:
    engine = engine_for(enforce_eager=False)
    long, short = prompt(1, 250), prompt(2, 40)
    expected = [engine.alone(long, 6), engine.alone(short, 6)]
    seen: list[int] = []

    def arrive() -> None:
        seen.append(engine.core.scheduler.suspended[-1].checkpoint)
        if len(seen) == 2:
            ids.append(engine.add(short, 6, LS))

    ids = [engine.add(long, 6, BE)]
    engine.on_suspended = arrive
    engine.run()
    assert 2 in seen and engine.core.priority_controller.checkpoints == 4
    for request_id, reference in zip(ids, expected, strict=True):
        assert_same(engine.results[request_id], reference, request_id)
