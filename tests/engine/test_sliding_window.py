# SPDX-License-Identifier: Apache-2.0
"""Invariant 3 where a prefix-cache hit holds only the last window's blocks."""

from __future__ import annotations

import pytest

from tests.engine.scripted import BE, LS, EngineFor
from tests.engine.test_token_equality import assert_same, prompt


@pytest.mark.covers("Sliding windows", "eager", suspended=True)
@pytest.mark.covers("Prefix caching", "eager", suspended=True)
@pytest.mark.parametrize("window", [64, 96])
def test_a_hit_on_half_written_blocks_is_refused(engine_for: EngineFor, window: int) -> None:
    engine = engine_for(hf_overrides={"sliding_window": window})
    long = prompt(1, 400)
    urgent = long[:384] + prompt(2, 16)
    expected_urgent, expected_slow = engine.alone(urgent, 8), engine.alone(long, 4)
    slow = engine.add(long, 4, BE)
    added: list[str] = []

    def arrive() -> None:
        step = engine.core.scheduler.flight.suspended[-1]
        # In the second chunk of the prompt, two layers of four written.
        if not added and step.request_ids.get(slow) == 144 and step.yield_point == 2:
            added.append(engine.add(urgent, 8, LS))

    engine.on_suspended = arrive
    engine.run()
    assert added
    assert_same(engine.results[slow], expected_slow, "suspended")
    assert_same(engine.results[added[0]], expected_urgent, "nested")
