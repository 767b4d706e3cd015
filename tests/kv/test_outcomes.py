# SPDX-License-Identifier: Apache-2.0
"""Parked, spilled or computed again: every request gets the tokens it gets alone."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.engine.scripted import BE, LS, EngineFor, ScriptedEngine, stop_everywhere
from tests.engine.test_token_equality import assert_same, prompt
from vllm_qllm.kv.costs import Costs
from vllm_qllm.kv.file_tier import FileTier

# Blocks of 32 tokens; one is vLLM's own, 16 hold the longest request.
SMALLEST, SMALL = 17, 26

requests = st.tuples(
    st.integers(0, 5),  # seed: equal ones share the whole prompt
    st.integers(2, 440),  # prompt tokens
    st.sampled_from([0, 64, 160]),  # of which shared with every other request
    st.integers(1, 30),  # output tokens
    st.sampled_from([LS, BE, BE, BE]),
)


def spilling(engine_for: EngineFor, blocks: int, **config: Any) -> ScriptedEngine:
    """An engine with few KV blocks and room for eight requests on the host."""
    return engine_for(
        num_gpu_blocks_override=blocks,
        max_model_len=512,
        priority_config={
            **stop_everywhere(),
            "spill_bytes": 2**24,
            "reserved_kv": 0.0,
            "max_preemptions": 1000,
            **config,
        },
    )


def counters(engine: ScriptedEngine) -> dict[str, float]:
    """Of the less urgent class."""
    recorder = engine.core.scheduler.accounting._recorder
    slots = recorder._slots
    return {
        "preempted": slots[recorder._preemptions[BE]],
        "saved": slots[recorder._saved[BE]],
        "again": slots[recorder._recomputed[BE]],
        "errors": slots[recorder._spill_errors[LS]] + slots[recorder._spill_errors[BE]],
    }


@pytest.mark.parametrize(("place", "blocks"), [("memory", SMALLEST), ("file", SMALL)])
@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    arrivals=st.lists(st.tuples(st.integers(0, 60), requests), min_size=3, max_size=7),
    spilled=st.lists(st.booleans(), min_size=1, max_size=7),
)
def test_same_tokens_whatever_becomes_of_the_blocks(
    engine_for: EngineFor,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
    blocks: int,
    place: str,
    arrivals: list[tuple[int, tuple[int, int, int, int, int]]],
    spilled: list[bool],
) -> None:
    path = str(tmp_path_factory.getbasetemp()) if place == "file" else None
    engine = spilling(engine_for, blocks, spill_path=path)
    free = engine.free_blocks
    chosen = itertools.cycle(spilled)
    monkeypatch.setattr(Costs, "recompute", lambda self, tokens: 1.0)
    monkeypatch.setattr(Costs, "restore", lambda self, out, back: 0.0 if next(chosen) else 2.0)
    specs = [(prompt(s, n, shared), out, p) for _, (s, n, shared, out, p) in arrivals]
    expected = [engine.alone(tokens, out) for tokens, out, _ in specs]
    ids = engine.run_arrivals(specs, [due for due, _ in arrivals])
    for i, reference in enumerate(expected):
        assert_same(engine.results[ids[i]], reference, f"request {i} of {arrivals}, {spilled}")
    assert engine.free_blocks == free
    slots = engine.core.scheduler.spill.slots
    slots.step_is_complete()
    assert slots.free == slots.count
    engine.reset()


def test_all_three_outcomes_happen(
    engine_for: EngineFor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    engine = spilling(engine_for, SMALL)
    chosen = itertools.cycle([True, False])
    monkeypatch.setattr(Costs, "recompute", lambda self, tokens: 1.0)
    monkeypatch.setattr(Costs, "restore", lambda self, out, back: 0.0 if next(chosen) else 2.0)
    specs = [(prompt(i, 150), 30, BE) for i in range(4)]
    urgent = prompt(9, 400), 4
    expected = [engine.alone(tokens, out) for tokens, out, _ in specs]
    before = counters(engine)
    ids = [engine.add(*spec) for spec in specs]
    stops = 0

    def arrive() -> None:
        nonlocal stops
        stops += 1
        if stops in (30, 60):
            engine.add(*urgent, LS)

    engine.on_suspended = arrive
    engine.run()
    for request_id, reference in zip(ids, expected, strict=True):
        assert_same(engine.results[request_id], reference, request_id)
    after = counters(engine)
    grown = {name: after[name] - before[name] for name in after}
    assert grown["preempted"] >= 4
    assert grown["saved"] > 0 and grown["again"] > 0 and grown["errors"] == 0, grown
    engine.reset()


def test_what_the_host_lost_is_computed_again(
    engine_for: EngineFor, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: Any
) -> None:
    engine = spilling(engine_for, SMALL, spill_path=str(tmp_path_factory.getbasetemp()))
    monkeypatch.setattr(Costs, "restore", lambda self, out, back: 0.0)
    read = FileTier.read
    reads = 0

    def damaged(tier: FileTier, slots: list[int], blocks: list[int]) -> list[int]:
        nonlocal reads
        reads += 1
        byte = os.pread(tier._file, 1, slots[-1] * tier._size + 9)
        os.pwrite(tier._file, bytes([byte[0] ^ 16]), slots[-1] * tier._size + 9)
        return read(tier, slots, blocks)

    monkeypatch.setattr(FileTier, "read", damaged)
    # Two share their prompt: a block that one failed to restore must not be hit by the other.
    specs = [(prompt(i // 2, 150), 20, BE) for i in range(4)]
    expected = [engine.alone(tokens, out) for tokens, out, _ in specs]
    before = counters(engine)
    ids = [engine.add(*spec) for spec in specs]
    stops = 0

    def arrive() -> None:
        nonlocal stops
        stops += 1
        if stops in (20, 40, 60):
            engine.add(prompt(stops, 450), 2, LS)

    engine.on_suspended = arrive
    engine.run()
    for request_id, reference in zip(ids, expected, strict=True):
        assert_same(engine.results[request_id], reference, request_id)
    assert reads and counters(engine)["errors"] - before["errors"] == reads
    engine.reset()


def test_no_more_is_parked_than_asked_for(engine_for: EngineFor) -> None:
    engine = spilling(engine_for, 40, park_fraction=0.2, checkpoints="none")
    specs = [(prompt(i, 120), 12, BE) for i in range(4)]
    expected = [engine.alone(tokens, out) for tokens, out, _ in specs]
    before = counters(engine)
    ids = [engine.add(*spec) for spec in specs]
    while any(not engine.results[i].tokens for i in ids):
        engine.step()
    assert counters(engine) == before
    engine.add(prompt(9, 90), 6, LS)
    engine.step()
    parking = engine.core.scheduler.parking
    # Four requests hold four blocks each, of 40; two of them may keep theirs.
    assert parking.parked()[BE] == (2, 8)
    assert counters(engine)["preempted"] == before["preempted"] + 2, "though no block was short"
    engine.run()
    for request_id, reference in zip(ids, expected, strict=True):
        assert_same(engine.results[request_id], reference, request_id)
    engine.reset()
