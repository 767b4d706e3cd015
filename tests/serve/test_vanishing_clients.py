# SPDX-License-Identifier: Apache-2.0
"""Clients that vanish, a thousand in the middle of a stream, leave nothing on the server."""

from __future__ import annotations

import asyncio
import time

import aiohttp
import openai
import pytest

from tests.serve.server import MODEL, Server
from tests.serve.standstill import is_suspended, standstill

pytestmark = pytest.mark.server

WAVES, CLIENTS = 10, 100
ABORTS = 'qllm_requests_total{class="best_effort",outcome="abort"}'


def wait_until_idle(server: Server) -> None:
    """Until no request runs, waits or is suspended."""
    deadline = time.monotonic() + 30
    while any(n for k, n in server.samples("qllm_requests_").items() if "_total" not in k):
        assert time.monotonic() < deadline, "requests of nobody are left"
        time.sleep(0.1)


@pytest.mark.covers("Clients that vanish", "eager")
def test_a_thousand_in_the_middle_of_a_stream(server: Server) -> None:
    async def open_stream(session: aiohttp.ClientSession, number: int) -> aiohttp.ClientResponse:
        """A long request that has begun to be answered."""
        body = {
            "model": MODEL,
            "prompt": f"{number} hello",
            "max_tokens": 1900,
            "ignore_eos": True,
            "stream": True,
            "service_tier": "flex",
        }
        response = await session.post("/v1/completions", json=body)
        assert response.status == 200
        assert (await response.content.readline()).startswith(b"data: {")
        return response

    async def load() -> None:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(server.url, connector=connector) as session:
            for _ in range(WAVES):
                streams = await asyncio.gather(*(open_stream(session, n) for n in range(CLIENTS)))
                for stream in streams:
                    stream.close()  # the connection, without reading on

    before = server.samples("qllm_requests_total")[ABORTS]
    asyncio.run(load())
    wait_until_idle(server)
    assert server.samples("qllm_requests_total")[ABORTS] == before + WAVES * CLIENTS


@pytest.mark.covers("Clients that vanish", "eager", suspended=True)
def test_while_their_step_is_suspended(server: Server) -> None:
    async def vanish() -> tuple[int, bool]:
        """How many vanish, and whether their step was suspended even then."""
        async with openai.AsyncOpenAI(
            base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60
        ) as client:
            best_effort, urgent = await standstill(server, client)
            for task in best_effort:
                task.cancel()
            await asyncio.wait(best_effort)
            still = await asyncio.to_thread(is_suspended, server)
            for task in urgent:
                task.cancel()
            await asyncio.wait(urgent)
            return len(best_effort), still

    for _ in range(10):
        before = server.samples("qllm_requests_total")[ABORTS]
        count, suspended = asyncio.run(vanish())
        wait_until_idle(server)
        aborted = server.samples("qllm_requests_total")[ABORTS] - before
        assert 0 < aborted <= count
        if suspended:
            return
    raise AssertionError("the step went on before its clients had vanished")
