# SPDX-License-Identifier: Apache-2.0
"""KV of preempted requests goes to the host and comes back, to the same bits.

As in ``test_suspension.py`` every step is that of one request.
"""

from __future__ import annotations

import pytest

from tests.engine.scripted import BE, LS, EngineFor
from tests.engine.test_token_equality import prompt
from tests.gpu.test_suspension import COMMON, MODES
from tests.kv.spilling import (
    SMALLEST,
    assert_nothing_kept,
    counters,
    in_file,
    spill_in_turn,
    spilling,
)


@pytest.mark.parametrize("place", ["memory", "file"])
@pytest.mark.parametrize("mode", ["eager", "graphs"])
def test_what_was_spilled_comes_back(
    engine_for: EngineFor,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
    mode: str,
    place: str,
) -> None:
    config = in_file(tmp_path_factory.getbasetemp()) if place == "file" else {}
    engine = spilling(engine_for, SMALLEST, config, **COMMON, **MODES[mode])
    spill_in_turn(monkeypatch, [True])
    tokens, urgent = prompt(1, 300), prompt(2, 480)
    expected = [engine.alone(tokens, 30), engine.alone(urgent, 4)]
    before = counters(engine)
    victim = engine.add(tokens, 30, BE)
    while len(engine.results[victim].tokens) < 10:
        engine.step()
    other = engine.add(urgent, 4, LS)  # needs all blocks
    engine.run()
    for request_id, reference in zip((victim, other), expected, strict=True):
        assert engine.results[request_id].tokens == reference.tokens
        assert engine.results[request_id].logprobs == reference.logprobs, "to the bit"
    after = counters(engine)
    assert after["preempted"] == before["preempted"] + 1
    assert after["saved"] - before["saved"] >= 300 and after["errors"] == before["errors"]
    assert_nothing_kept(engine)
    engine.reset()
