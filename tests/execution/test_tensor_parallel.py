# SPDX-License-Identifier: Apache-2.0
"""With several ranks, all of them stop at the same checkpoint, however late one of them is."""

from __future__ import annotations

import random
import threading
import time
from multiprocessing import shared_memory

import pytest

from tests.engine.scripted import BE, LS, EngineFor
from tests.engine.test_token_equality import assert_same, prompt
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
    """Runs in each worker: rank 1 is late at some checkpoints, early at others."""
    import random
    import time

    session = worker._priority_session  # type: ignore[attr-defined]
    decide = session._agreement.decide
    rng = random.Random(worker.rank)  # type: ignore[attr-defined]

    def late(wanted: object) -> bool:
        time.sleep(rng.choice([0, 0.01, 0.03]))
        return bool(decide(wanted))

    session._agreement.decide = late


def test_two_ranks_nest_and_give_the_same_tokens(
    engine_for: EngineFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "0|1")
    engine = engine_for(distributed_executor_backend="mp", tensor_parallel_size=2)
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
