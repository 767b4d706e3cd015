# SPDX-License-Identifier: Apache-2.0
"""Whatever the spill store does and whoever leaves, nobody gets a wrong token."""

from __future__ import annotations

import errno
import itertools
import os
import time
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.engine.scripted import BE, LS, EngineFor, ScriptedEngine
from tests.engine.test_token_equality import assert_same, prompt
from tests.kv.spilling import (
    SMALLEST,
    any_requests,
    assert_nothing_kept,
    damage,
    in_file,
    spill_in_turn,
    spilling,
    squeeze,
)
from vllm_qllm.kv.costs import Costs
from vllm_qllm.kv.file_tier import FileTier

requests = any_requests(3)


def engine_with_file(engine_for: EngineFor, factory: pytest.TempPathFactory) -> ScriptedEngine:
    return spilling(engine_for, SMALLEST, in_file(factory.getbasetemp()))


def fail_in_turn(monkeypatch: pytest.MonkeyPatch, writes: list[bool], reads: list[bool]) -> None:
    """Let a write find the disk full, and a read what was not written, each in turn."""
    of_write, of_read = itertools.cycle(writes), itertools.cycle(reads)
    pwrite, read = os.pwrite, FileTier.read

    def full(*args: Any) -> int:
        if next(of_write):
            raise OSError(errno.ENOSPC, "No space left on device")
        return pwrite(*args)

    def damaged(tier: FileTier, slots: Sequence[int], blocks: Sequence[int]) -> list[int]:
        for slot in slots:
            if next(of_read):
                with monkeypatch.context() as undamaged:
                    undamaged.setattr(os, "pwrite", pwrite)
                    damage(tier, slot)
        return read(tier, slots, blocks)

    monkeypatch.setattr(os, "pwrite", full)
    monkeypatch.setattr(FileTier, "read", damaged)


@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    arrivals=st.lists(st.tuples(st.integers(0, 60), requests), min_size=3, max_size=7),
    leaving=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 6)), max_size=4),
    spilled=st.lists(st.booleans(), min_size=1, max_size=5),
    writes=st.lists(st.booleans(), min_size=1, max_size=7),
    reads=st.lists(st.booleans(), min_size=1, max_size=7),
)
def test_faults_and_aborts_change_no_token(
    engine_for: EngineFor,
    tmp_path_factory: pytest.TempPathFactory,
    arrivals: list[tuple[int, tuple[int, int, int, int, int]]],
    leaving: list[tuple[int, int]],
    spilled: list[bool],
    writes: list[bool],
    reads: list[bool],
) -> None:
    engine = engine_with_file(engine_for, tmp_path_factory)
    free = engine.free_blocks
    specs = [(prompt(s, n, shared), out, p) for _, (s, n, shared, out, p) in arrivals]
    expected = [engine.alone(tokens, out) for tokens, out, _ in specs]
    with pytest.MonkeyPatch.context() as patch:
        spill_in_turn(patch, spilled)
        fail_in_turn(patch, writes, reads)
        gone: set[str] = set()

        def leave(tick: int, ids: list[str]) -> None:
            for due, who in leaving:
                if due == tick and who < len(ids) and ids[who]:
                    gone.add(ids[who])
                    engine.abort(ids[who])

        ids = engine.run_arrivals(specs, [due for due, _ in arrivals], leave)
        again = engine.run_arrivals(specs, [10 * i for i in range(len(specs))])
    for i, reference in enumerate(expected):
        what = f"request {i} of {arrivals}, {leaving}, {spilled}, {writes}, {reads}"
        if ids[i] not in gone:
            assert_same(engine.results[ids[i]], reference, what)
        # It finds in the cache what the first ones left there, those that were aborted, too.
        assert_same(engine.results[again[i]], reference, f"second {what}")
    assert engine.free_blocks == free
    assert_nothing_kept(engine)
    engine.reset()


def test_a_full_disk_is_counted_and_computed_again(
    engine_for: EngineFor,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    engine = spilling(engine_for, config=in_file(tmp_path_factory.getbasetemp()))
    spill_in_turn(monkeypatch, [True])
    fail_in_turn(monkeypatch, writes=[True], reads=[False])
    grown = squeeze(engine, at=(20, 40, 60))
    assert grown["preempted"] and grown["errors"] and grown["again"], grown


def test_a_slow_disk_is_left_alone(
    engine_for: EngineFor,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    engine = spilling(engine_for, config=in_file(tmp_path_factory.getbasetemp()))
    monkeypatch.setattr(engine.core.scheduler.spill, "costs", Costs())
    pwrite, writes = os.pwrite, 0

    def slow(*args: Any) -> int:
        nonlocal writes
        writes += 1
        time.sleep(0.2)
        return pwrite(*args)

    monkeypatch.setattr(os, "pwrite", slow)
    grown = squeeze(engine, at=(20, 40, 60))
    # Those of the first step that copied: nobody knew.
    assert 0 < writes <= 12
    assert grown["preempted"] and grown["again"] and not grown["errors"], grown


@pytest.mark.covers("Aborts", "eager", suspended=True)
def test_an_abort_gives_back_what_is_on_the_host_and_what_is_parked(
    engine_for: EngineFor,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    engine = engine_with_file(engine_for, tmp_path_factory)
    free = engine.free_blocks
    spill_in_turn(monkeypatch, [True])
    waiting = [engine.add(prompt(seed, 150), 30, BE) for seed in (1, 2)]
    while not all(engine.results[i].tokens for i in waiting):
        engine.step()
    urgent = engine.add(prompt(3, 300), 20, LS)
    engine.step()
    scheduler = engine.core.scheduler
    on_host = [i for i in waiting if scheduler.spill.tokens(i)]
    parked = scheduler.census.parked()[BE]
    assert len(on_host) == 1 and parked[0] == 1, "one lost its blocks, the other keeps them"
    held = engine.free_blocks
    engine.abort(*waiting)
    assert scheduler.spill.held() == {}
    assert engine.free_blocks == held + parked[1]
    engine.run()
    assert len(engine.results[urgent].tokens) == 20
    assert engine.free_blocks == free
    assert_nothing_kept(engine)
    engine.reset()
