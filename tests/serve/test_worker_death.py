# SPDX-License-Identifier: Apache-2.0
"""A worker that is killed under load ends the server; every client gets an answer in time."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from pathlib import Path

import openai
import pytest

from tests.serve.server import MODEL, STRICT, Server, serve
from tests.serve.test_preemption import prompt

pytestmark = [pytest.mark.server, pytest.mark.slow]


def process_named(server: Server, title: str) -> int:
    for pid in server.processes():
        if title in Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace"):
            return pid
    raise AssertionError(f"no process {title} in the server")


@pytest.mark.parametrize("title", ["VLLM::Worker", "VLLM::EngineCore"])
def test_every_client_gets_an_answer(tiny_model: Path, tmp_path: Path, title: str) -> None:
    async def ask(client: openai.AsyncOpenAI, seed: int, length: int, priority: int) -> float:
        """When the request ended, with an error or not."""
        try:
            stream = await client.completions.create(
                model=MODEL,
                prompt=prompt(seed, length),
                max_tokens=200,
                stream=True,
                extra_body={"priority": priority, "ignore_eos": True},
            )
            async for _ in stream:
                pass
        except openai.APIError:
            pass
        return time.monotonic()

    async def load(server: Server) -> None:
        client = openai.AsyncOpenAI(
            base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60
        )
        tasks = [asyncio.create_task(ask(client, n, 1800, 9)) for n in range(8)]
        tasks += [asyncio.create_task(ask(client, 50 + n, 30, 0)) for n in range(4)]
        await asyncio.sleep(random.uniform(0.2, 0.8))
        os.kill(process_named(server, title), signal.SIGKILL)
        killed = time.monotonic()
        ended = await asyncio.gather(*tasks)
        assert max(ended) - killed < 10

    with serve(tiny_model, tmp_path / "log", *STRICT) as server:
        asyncio.run(load(server))
        assert server.has_ended(within_seconds=30), server.tail()
