# SPDX-License-Identifier: Apache-2.0
"""A process that is killed while steps are suspended ends the server, and a restart serves.

Every server of this file listens on the same port and has the same directory for temporary files,
so each is the restart of the one before. A status page that was opened once sees all of them.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.serve.browser import Tab
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


STATE = "document.getElementById('state').dataset.state"


def watch(tab: Tab, url: str) -> None:
    """The page that a browser has, or opens, shows that the server serves."""
    if not tab.evaluate("location.href").startswith(url):
        tab.look(1440, 900)
        tab.open(f"{url}/qllm/")
    tab.wait_for(f"{STATE} === 'serving'", within_seconds=60)


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
            "Worker",
            (),
            marks=(
                pytest.mark.covers("Worker killed", "eager", suspended=True),
                pytest.mark.thorough,
            ),
        ),
    ],
)
def test_every_client_gets_an_error_and_the_server_ends(
    tiny_model: Path,
    tmp_path: Path,
    temporary: Path,
    port: int,
    tab: Tab,
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

    before = set(temporary.glob("vllm-qllm-*"))
    with serve(tiny_model, tmp_path / "log", *STRICT, *PATIENT, *arguments, port=port) as server:
        mapped = shared_memory(server)
        python = {path for path in mapped if path.name.startswith("psm_")}
        assert len(python) >= 2, "the arrival flag and a queue"
        watch(tab, server.url)
        asyncio.run(load(server))
        assert server.has_ended(within_seconds=30), server.tail()
        tab.wait_for(f"{STATE} === 'silent'", within_seconds=60)
    assert not [path for path in python if path.exists()]
    # vLLM's own memory for the all-reduce of CPU ranks outlives a rank that is killed.
    for path in mapped - python:
        path.unlink(missing_ok=True)
    assert set(temporary.glob("vllm-qllm-*")) <= before


def files_of(pid: int, directory: Path) -> list[str]:
    """Files in this directory that a process has open, those without a name included."""
    links = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
    return [link for link in links if link.startswith(f"{directory}/")]


@pytest.mark.covers("KV spilled to the host", "eager", suspended=True)
def test_nothing_is_left_of_what_was_spilled_to_a_disk(
    tiny_model: Path,
    tmp_path: Path,
    temporary: Path,
    port: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TMPDIR", str(temporary))
    directory = tmp_path / "spill"
    directory.mkdir()
    config = {"spill_bytes": 2**24, "spill_path": str(directory)}
    few_blocks = ("--num-gpu-blocks-override", "24", "--priority-config", json.dumps(config))

    async def load(server: Server) -> None:
        client = openai.AsyncOpenAI(
            base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60
        )
        # They fill more than half of the blocks, and are copied ahead.
        tasks = [asyncio.create_task(ask(client, 900, 900, 9, False)) for _ in range(2)]
        while not any((await asyncio.to_thread(server.samples, "qllm_spilled_bytes")).values()):
            assert not all(task.done() for task in tasks), "nothing was spilled"
        for pid in processes(server).values():
            os.kill(pid, signal.SIGKILL)
        await asyncio.gather(*tasks)
        await client.close()

    with serve(tiny_model, tmp_path / "log", *STRICT, *few_blocks, port=port) as server:
        mapped = shared_memory(server)
        assert len(files_of(processes(server)["Worker"], directory)) == 1
        asyncio.run(load(server))
        assert server.has_ended(within_seconds=30), server.tail()
    # Nobody can clean up behind all of its processes; what has no name needs nobody.
    assert list(directory.iterdir()) == []
    for path in mapped:
        path.unlink(missing_ok=True)
