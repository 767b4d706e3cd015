# SPDX-License-Identifier: Apache-2.0
"""Parked, spilled or computed again: every request gets the tokens it gets alone."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vllm.distributed.kv_transfer import get_kv_transfer_group

from tests.engine.scripted import BE, LS, EngineFor
from tests.engine.test_token_equality import assert_same, prompt
from tests.kv.spilling import (
    SMALL,
    SMALLEST,
    any_requests,
    assert_nothing_kept,
    counters,
    damage,
    in_file,
    spill_in_turn,
    spilling,
    squeeze,
)
from vllm_qllm.kv.connector import SpillConnector
from vllm_qllm.kv.costs import Costs
from vllm_qllm.kv.file_tier import FileTier

requests = any_requests(5)


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
    config = in_file(tmp_path_factory.getbasetemp()) if place == "file" else {}
    engine = spilling(engine_for, blocks, config)
    free = engine.free_blocks
    spill_in_turn(monkeypatch, spilled)
    specs = [(prompt(s, n, shared), out, p) for _, (s, n, shared, out, p) in arrivals]
    expected = [engine.alone(tokens, out) for tokens, out, _ in specs]
    ids = engine.run_arrivals(specs, [due for due, _ in arrivals])
    for i, reference in enumerate(expected):
        assert_same(engine.results[ids[i]], reference, f"request {i} of {arrivals}, {spilled}")
    assert engine.free_blocks == free
    assert_nothing_kept(engine)
    engine.reset()


@pytest.mark.covers("KV spilled to the host", "eager", suspended=True)
def test_all_three_outcomes_happen(engine_for: EngineFor, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = spilling(engine_for)
    spill_in_turn(monkeypatch, [True, False])
    grown = squeeze(engine, at=(30, 60))
    assert grown["preempted"] >= 4
    assert grown["saved"] > 0 and grown["again"] > 0 and grown["errors"] == 0, grown


def test_a_prefix_that_stays_cached_is_not_copied(
    engine_for: EngineFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = spilling(engine_for, SMALLEST)
    # All 180 tokens are dearer than six blocks out and in; 20 behind a cached prefix are cheaper.
    monkeypatch.setattr(Costs, "recompute", lambda self, tokens: float(tokens))
    monkeypatch.setattr(Costs, "restore", lambda self, out, back: 10.0 * (out + back))
    specs = [(prompt(seed, 180, 160), 8, BE) for seed in (1, 2)]
    expected = [engine.alone(tokens, out) for tokens, out, _ in specs]
    before = counters(engine)
    ids = [engine.add(*spec) for spec in specs]
    while any(not engine.results[i].tokens for i in ids):
        engine.step()
    engine.add(prompt(9, 300), 2, LS)
    engine.step()
    after = counters(engine)
    assert after["preempted"] == before["preempted"] + 1, "one block of sixteen was missing"
    assert not any(map(engine.core.scheduler.spill.tokens, ids))
    engine.run()
    assert counters(engine)["saved"] == after["saved"] + 160, "they were in the cache"
    for request_id, reference in zip(ids, expected, strict=True):
        assert_same(engine.results[request_id], reference, request_id)
    assert_nothing_kept(engine)
    engine.reset()


def test_what_the_host_lost_is_computed_again(
    engine_for: EngineFor, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: Any
) -> None:
    engine = spilling(engine_for, config=in_file(tmp_path_factory.getbasetemp()))
    spill_in_turn(monkeypatch, [True])
    read = FileTier.read
    reads = 0

    def damaged(tier: FileTier, slots: list[int], blocks: list[int]) -> list[int]:
        nonlocal reads
        reads += 1
        damage(tier, slots[-1])
        return read(tier, slots, blocks)

    monkeypatch.setattr(FileTier, "read", damaged)
    grown = squeeze(engine, at=(20, 40, 60))
    assert reads and grown["errors"] == reads


def test_no_more_is_parked_than_asked_for(engine_for: EngineFor) -> None:
    engine = spilling(engine_for, 40, {"park_fraction": 0.2, "yield_points": "none"})
    specs = [(prompt(i, 120), 12, BE) for i in range(4)]
    expected = [engine.alone(tokens, out) for tokens, out, _ in specs]
    before = counters(engine)
    ids = [engine.add(*spec) for spec in specs]
    while any(not engine.results[i].tokens for i in ids):
        engine.step()
    assert counters(engine) == before
    engine.add(prompt(9, 90), 6, LS)
    engine.step()
    parked = engine.core.scheduler.census.parked()[BE]
    # Four requests hold four blocks each, of 40; two of them may keep theirs.
    assert parked == (2, 8)
    assert counters(engine)["preempted"] == before["preempted"] + 2, "though no block was short"
    engine.run()
    for request_id, reference in zip(ids, expected, strict=True):
        assert_same(engine.results[request_id], reference, request_id)
    assert_nothing_kept(engine)
    engine.reset()


def test_what_could_not_be_restored_for_an_aborted_request_is_not_hit(
    engine_for: EngineFor, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: Any
) -> None:
    engine = spilling(engine_for, SMALLEST, in_file(tmp_path_factory.getbasetemp()))
    spill_in_turn(monkeypatch, [True])
    tokens = prompt(1, 150)
    expected = engine.alone(tokens, 8)
    read = FileTier.read
    reads = 0

    def damaged(tier: FileTier, slots: list[int], blocks: list[int]) -> list[int]:
        nonlocal reads
        reads += 1
        damage(tier, slots[0])
        return read(tier, slots, blocks)

    monkeypatch.setattr(FileTier, "read", damaged)
    victim = engine.add(tokens, 30, BE)
    while not engine.results[victim].tokens:
        engine.step()
    # It needs all blocks: those of the victim are overwritten.
    engine.add(prompt(2, 480), 20, LS)

    def leave() -> None:
        if reads:
            engine.abort(victim)

    engine.on_suspended = leave
    engine.run()
    assert reads == 1 and len(engine.results[victim].tokens) < 30, "aborted while it came back"
    again = engine.add(tokens, 8, BE)
    engine.run()
    assert_same(engine.results[again], expected, "the same prompt again")
    assert_nothing_kept(engine)
    engine.reset()


def test_a_step_is_suspended_while_it_restores(
    engine_for: EngineFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is urgent then takes all slots, or aborts the one that comes back: no wrong token."""
    engine = spilling(engine_for, SMALLEST)
    spill_in_turn(monkeypatch, [True])
    victim, other = prompt(1, 150), prompt(4, 150)
    expected = [engine.alone(tokens, 30) for tokens in (victim, other)]
    connector = get_kv_transfer_group()
    assert isinstance(connector, SpillConnector)
    due: list[int] = []
    for leaves in (False, True):
        came_back = engine.add(victim, 30, BE)
        beside = engine.add(other, 30, BE)
        while not (engine.results[came_back].tokens and engine.results[beside].tokens):
            engine.step()
        # It needs all blocks: those of both are overwritten.
        engine.add(prompt(2, 480), 2, LS)
        due.clear()

        def act(leaves: bool = leaves, came_back: str = came_back) -> None:
            if left := len(connector._steps[-1].due):
                due.append(left)
                if len(due) == 1:
                    engine.add(prompt(3, 200), 2, LS)
                    if leaves:
                        engine.abort(came_back)

        engine.on_suspended = act
        engine.run()
        engine.on_suspended = lambda: None
        assert due, "no step was suspended between the layers that restore"
        assert_same(engine.results[beside], expected[1], "the one beside it")
        again = engine.add(victim, 30, BE)
        engine.run()
        for request_id in {again} if leaves else {again, came_back}:
            assert_same(engine.results[request_id], expected[0], f"leaves: {leaves}")
    assert_nothing_kept(engine)
    engine.reset()
