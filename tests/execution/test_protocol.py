# SPDX-License-Identifier: Apache-2.0
"""The same protocol under both executors, and what becomes of it when a worker dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.engine.scripted import BE, LS, EngineFor
from tests.engine.test_token_equality import assert_same, prompt
from vllm_qllm.execution.flag import Flag

EXECUTORS = [
    pytest.param("uni", marks=pytest.mark.covers("In-process executor", "eager", suspended=True)),
    pytest.param("mp", marks=pytest.mark.covers("Multiprocess executor", "eager", suspended=True)),
]


@pytest.mark.parametrize("executor", EXECUTORS)
def test_nested_steps_give_the_same_tokens(engine_for: EngineFor, executor: str) -> None:
    engine = engine_for(distributed_executor_backend=executor)
    specs = [(prompt(1, 400, 64), 8, BE), (prompt(2, 120, 64), 8, BE), (prompt(3, 90, 64), 8, LS)]
    expected = [engine.alone(tokens, out) for tokens, out, _ in specs]
    ids = [engine.add(*spec) for spec in specs[:2]]
    stops = 0

    def arrive() -> None:
        nonlocal stops
        stops += 1
        if stops % 5 == 2 and len(ids) < 6:
            ids.append(engine.add(*specs[2]))

    engine.on_suspended = arrive
    engine.run()
    assert stops >= 12, "every layer of every best-effort step is a yield point"
    assert len(ids) > 3
    for number, request_id in enumerate(ids):
        assert_same(engine.results[request_id], expected[min(number, 2)], f"request {number}")
    engine.reset()


def test_a_flag_names_one_step() -> None:
    flag = Flag()
    reader = Flag(flag.name)
    try:
        flag.raise_for(7)
        assert reader.names(7)
        assert not reader.names(8), "a flag raised too late must not suspend the next step"
    finally:
        reader.close()
        flag.close()


def test_a_flag_that_nobody_closes_is_removed() -> None:
    # As of an LLM(...) in the user's process, which ends when the program does.
    code = "from vllm_qllm.execution.flag import Flag; flag = Flag(); print(flag.name)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr == "", "Python's resource tracker had to remove it"
    assert not Path("/dev/shm", done.stdout.strip()).exists()


def test_worker_death_while_suspended_is_an_error_not_a_hang(engine_for: EngineFor) -> None:
    engine = engine_for(distributed_executor_backend="mp", seed=1)
    worker = engine.core.model_executor.workers[0].proc
    engine.add(prompt(1, 250), 4, BE)

    def kill() -> None:
        if engine.suspensions == 2:
            os.kill(worker.pid, signal.SIGKILL)
            engine.add(prompt(2, 20), 4, LS)

    engine.suspensions = 0
    engine.on_suspended = kill
    began = time.monotonic()
    with pytest.raises(Exception):  # noqa: B017  vLLM raises different types by timing
        engine.run()
    assert time.monotonic() - began < 30
    engine.discard()
