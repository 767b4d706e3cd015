# SPDX-License-Identifier: Apache-2.0
"""A process that is killed while steps are suspended ends the server, and a restart serves.

Every server of this file listens on the same port and has the same directory for temporary files,
so each is the restart of the one before.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.serve.resources import processes, shared_memory
from tests.serve.server import STRICT, Server, free_port, serve
from tests.serve.standstill import PATIENT, ask, is_suspended, standstill

pytestmark = [pytest.mark.server, pytest.mark.slow]


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def temporary() -> Iterator[Path]:
    """A directory with a short name: vLLM's sockets in it must not exceed 107 characters."""
    with tempfile.TemporaryDirectory(prefix="q") as directory:
        yield Path(directory)


TWO_RANKS = ("--tensor-parallel-size", "2")


@pytest.mark.parametrize(
    ("title", "arguments"),
    [
        pytest.param(
            "EngineCore", (), marks=pytest.mark.covers("EngineCore killed", "eager", suspended=True)
        ),
        pytest.param(
            "Worker_TP1",
            TWO_RANKS,
            marks=pytest.mark.covers("TP rank killed", "tp2", suspended=True),
        ),
        pytest.param(
            "Worker", (), marks=pytest.mark.covers("Worker killed", "eager", suspended=True)
        ),
    ],
)
def test_every_client_gets_an_error_and_the_server_ends(
    tiny_model: Path,
    tmp_path: Path,
    temporary: Path,
    port: int,
    monkeypatch: pytest.MonkeyPatch,
    title: str,
    arguments: tuple[str, ...],
) -> None:
    monkeypatch.setenv("TMPDIR", str(temporary))
    if arguments == TWO_RANKS:
        monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "0|1")

    async def load(server: Server) -> None:
        client = openai.AsyncOpenAI(
            base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60
        )
        first = await ask(client, 30, 2, 0, False)
        assert first.how == "length", f"it does not serve: {first.how}"
        best_effort, urgent = await standstill(server, client)
        await asyncio.sleep(random.uniform(0, 0.3))
        assert await asyncio.to_thread(is_suspended, server)
        left = [task for task in (*best_effort, *urgent) if not task.done()]
        os.kill(processes(server)[title], signal.SIGKILL)
        killed = time.monotonic()
        endings = await asyncio.gather(*left)
        assert max(ending.at for ending in endings) - killed < 10
        # Not one may take what it has got for the whole answer.
        errors = [ending.how for ending in endings if ending.how and "Error" in ending.how]
        assert len(errors) == len(endings) >= 2, [ending.how for ending in endings]
        await client.close()

    with serve(tiny_model, tmp_path / "log", *STRICT, *PATIENT, *arguments, port=port) as server:
        mapped = shared_memory(server)
        python = {path for path in mapped if path.name.startswith("psm_")}
        assert len(python) >= 2, "the arrival flag and a queue"
        asyncio.run(load(server))
        assert server.has_ended(within_seconds=30), server.tail()
    assert not [path for path in python if path.exists()]
    # vLLM's own memory for the all-reduce of CPU ranks outlives a rank that is killed.
    for path in mapped - python:
        path.unlink(missing_ok=True)
    assert not list(temporary.glob("vllm-qllm-*"))
