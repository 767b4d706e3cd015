# SPDX-License-Identifier: Apache-2.0
"""With several ranks, all of them stop at the same yield point, however late one of them is."""

from __future__ import annotations

import random
import threading
import time
from multiprocessing import shared_memory

import pytest

from tests.engine.scripted import BE, LS, EngineFor, ScriptedEngine
from tests.engine.test_suspension import at_suspension
from tests.engine.test_token_equality import assert_same, prompt
from tests.kv.spilling import counters, in_file, spill_in_turn, spilling, squeeze
from vllm_qllm.execution.agreement import SIZE, Agreement


def test_ranks_agree_whichever_comes_first() -> None:
    memory = shared_memory.SharedMemory(create=True, size=SIZE)
    try:
        decisions: list[list[bool]] = [[], []]

        def rank(number: int) -> None:
            agreement = Agreement(memory, 0, number, 2)
            asked = random.Random(1)
            pauses = random.Random(number + 2)
            for _ in range(200):  # below SLOTS: here no all-reduce keeps the ranks together
                time.sleep(pauses.choice([0, 0, 0.002]))
                decisions[number].append(agreement.decide(lambda: asked.random() < 0.3))

        threads = [threading.Thread(target=rank, args=(n,)) for n in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert decisions[0] == decisions[1]
        assert 20 < sum(decisions[0]) < 100
    finally:
        memory.close()
        memory.unlink()


def _delay_at_random(worker: object) -> None:
    """Runs in each worker: rank 1 is late at some yield points, early at others."""
    import random
    import time

    session = worker._priority_session  # type: ignore[attr-defined]
    decide = session._agreement.decide
    rng = random.Random(worker.rank)  # type: ignore[attr-defined]

    def late(wanted: object) -> bool:
        time.sleep(rng.choice([0, 0.01, 0.03]))
        return bool(decide(wanted))

    session._agreement.decide = late


@pytest.fixture(params=["memory"])
def two_ranks(
    request: pytest.FixtureRequest,
    engine_for: EngineFor,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> ScriptedEngine:
    """An engine of two ranks, each of which spills KV into memory or a file of its own."""
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "0|1")
    return spilling(
        engine_for,
        config=in_file(tmp_path_factory.getbasetemp()) if request.param == "file" else {},
        distributed_executor_backend="mp",
        tensor_parallel_size=2,
    )


def test_two_ranks_nest_and_give_the_same_tokens(two_ranks: ScriptedEngine) -> None:
    engine = two_ranks
    specs = [(prompt(1, 400), 6, BE), (prompt(2, 90), 6, LS)]
    expected = [engine.alone(tokens, out) for tokens, out, _ in specs]
    engine.core.collective_rpc(_delay_at_random)
    ids = [engine.add(*specs[0])]
    stops = 0

    def arrive() -> None:
        nonlocal stops
        stops += 1
        if stops % 4 == 3 and len(ids) < 4:
            ids.append(engine.add(*specs[1]))

    engine.on_suspended = arrive
    engine.run()
    assert stops > 8 and len(ids) == 4
    for number, request_id in enumerate(ids):
        assert_same(engine.results[request_id], expected[min(number, 1)], f"request {number}")
    engine.reset()


@pytest.mark.covers("Out of KV blocks", "tp2", suspended=True)
def test_both_ranks_give_up_a_step(two_ranks: ScriptedEngine) -> None:
    engine = two_ranks
    # 25 usable blocks of 32 tokens: two of the long ones do not fit.
    specs = [(prompt(7, 440), 4, BE), (prompt(8, 430), 4, LS)]
    expected = [engine.alone(tokens, out) for tokens, out, _ in specs]
    engine.core.collective_rpc(_delay_at_random)
    ids = [engine.add(*specs[0])]
    engine.step()
    at_suspension(engine, 2, lambda: ids.append(engine.add(*specs[1])))
    before = counters(engine)["abandoned"]
    engine.step()
    assert counters(engine)["abandoned"] - before == 440 - 256
    engine.run()
    for request_id, reference in zip(ids, expected, strict=True):
        assert_same(engine.results[request_id], reference, request_id)
    engine.reset()


@pytest.mark.covers("KV spilled to the host", "tp2", suspended=True)
def test_both_ranks_restore_what_they_spilled(
    two_ranks: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    spill_in_turn(monkeypatch, [True, True, False])
    grown = squeeze(two_ranks, at=(30, 60))
    assert grown["saved"] > 0 and grown["again"] > 0 and grown["errors"] == 0, grown


def _lose_on_one_rank(worker: object) -> None:
    """Runs in each worker: what rank 1 reads back first has changed, each time."""
    from vllm.distributed.kv_transfer import get_kv_transfer_group

    from tests.kv.spilling import damage

    tier = get_kv_transfer_group()._mover._tier  # type: ignore[attr-defined]
    read = tier.read

    def damaged(slots: list[int], blocks: list[int]) -> object:
        damage(tier, slots[0])
        return read(slots, blocks)

    if worker.rank == 1:  # type: ignore[attr-defined]
        tier.read = damaged


@pytest.mark.parametrize("two_ranks", ["file"], indirect=True)
def test_what_one_rank_lost_both_compute_again(
    two_ranks: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    spill_in_turn(monkeypatch, [True])
    two_ranks.core.collective_rpc(_lose_on_one_rank)
    grown = squeeze(two_ranks, at=(30, 60))
    two_ranks.discard()
    assert grown["preempted"] and grown["errors"] and grown["again"], grown
