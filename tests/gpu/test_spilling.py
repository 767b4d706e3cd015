# SPDX-License-Identifier: Apache-2.0
"""KV of preempted requests goes to pinned host memory and comes back, to the same tokens."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine.scripted import EngineFor
from tests.gpu.test_suspension import COMMON, MODES
from tests.kv.spilling import in_file, spill_in_turn, spilling, squeeze


@pytest.mark.parametrize("place", ["memory", "file"])
@pytest.mark.parametrize("mode", ["eager", "graphs"])
def test_what_was_spilled_comes_back(
    engine_for: EngineFor,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
    mode: str,
    place: str,
) -> None:
    directory: Path = tmp_path_factory.getbasetemp()
    config = in_file(directory) if place == "file" else {}
    engine = spilling(engine_for, config=config, **COMMON, **MODES[mode])
    spill_in_turn(monkeypatch, [True, False])
    grown = squeeze(engine, at=(4, 8))
    assert grown["preempted"] and grown["saved"] > 0 and grown["errors"] == 0, grown
