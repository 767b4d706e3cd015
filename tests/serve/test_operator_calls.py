# SPDX-License-Identifier: Apache-2.0
"""Calls of an operator to a server on which a step stands still for as long as urgent work lasts.

Its best-effort step may be held back for an hour, so a call that waits for that step is answered
once all urgent requests have ended, if not an hour later.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from tests.serve.resources import processes
from tests.serve.server import STRICT, Server, serve
from tests.serve.standstill import PATIENT, Ending, Tasks, ask, is_suspended, standstill

pytestmark = [pytest.mark.server, pytest.mark.slow]
# A stream that ends before its first token says nothing, with stock vLLM, too.
ABORTED = {"abort", None}
OPTION, CONFIG = PATIENT
LIMITED = (OPTION, json.dumps(json.loads(CONFIG) | {"stall_limit_ms": 2000}))


@pytest.fixture(scope="module")
def server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that answers operators' calls."""
    log = tmp_path_factory.mktemp("server") / "log"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_SERVER_DEV_MODE", "1")
        with serve(tiny_model, log, *STRICT, *LIMITED) as running:
            yield running


@pytest.fixture
def client(server: Server) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", timeout=300)


async def call(server: Server, path: str, method: str = "POST") -> str:
    """The body of the answer."""
    async with httpx.AsyncClient(timeout=300) as client:
        answer = await client.request(method, server.url + path)
    return answer.raise_for_status().text


async def endings(tasks: Tasks) -> list[str | None]:
    """How requests ended."""
    ended: list[Ending] = await asyncio.gather(*tasks)
    return [one.how for one in ended]


@pytest.mark.covers("Calls of operators", "eager", suspended=True)
def test_what_only_asks_is_answered_while_a_step_is_suspended(
    server: Server, client: openai.AsyncOpenAI
) -> None:
    async def run() -> None:
        best_effort, urgent = await standstill(server, client)
        for path in ("/is_sleeping", "/is_paused"):
            assert "false" in await call(server, path, "GET")
        await call(server, "/reset_prefix_cache")
        await call(server, "/reset_mm_cache")
        # Not once the urgent work had ended, and nothing had to end for it.
        assert not any(task.done() for task in (*best_effort, *urgent))
        assert is_suspended(server)
        await call(server, "/pause?mode=abort")
        await call(server, "/resume")

    asyncio.run(run())


@pytest.mark.parametrize("path", ["/pause?mode=abort", "/sleep?mode=abort"])
def test_an_abort_comes_before_what_it_ends_has_ended(
    server: Server, client: openai.AsyncOpenAI, path: str
) -> None:
    async def run() -> None:
        best_effort, urgent = await standstill(server, client)
        await call(server, path)
        assert set(await endings([*best_effort, *urgent])) <= ABORTED
        await call(server, "/wake_up" if "sleep" in path else "/resume")
        assert (await ask(client, 30, 3, 0, stream=False)).how == "length"

    asyncio.run(run())


def test_requests_go_on_after_a_call_that_ends_their_step(
    server: Server, client: openai.AsyncOpenAI
) -> None:
    async def run() -> None:
        best_effort, urgent = await standstill(server, client)
        await call(server, "/reset_prefix_cache?reset_running_requests=true")
        await call(server, "/pause?mode=keep")
        assert not any(task.done() for task in (*best_effort, *urgent))
        await call(server, "/resume")
        assert set(await endings([*urgent, *best_effort])) == {"length"}

    asyncio.run(run())


def test_what_nobody_wants_is_not_computed_to_its_end(
    server: Server, client: openai.AsyncOpenAI
) -> None:
    abandoned = 'qllm_abandoned_tokens_total{class="best_effort"}'

    async def run() -> None:
        best_effort, urgent = await standstill(server, client)
        before = server.samples(abandoned.partition("{")[0])[abandoned]
        for task in best_effort:
            task.cancel()
        await asyncio.gather(*best_effort, return_exceptions=True)
        while await asyncio.to_thread(is_suspended, server):
            assert not all(task.done() for task in urgent), "it waits for the urgent work"
            await asyncio.sleep(0.05)
        assert server.samples(abandoned.partition("{")[0])[abandoned] > before
        await call(server, "/pause?mode=abort")
        assert set(await endings(urgent)) <= ABORTED
        await call(server, "/resume")

    asyncio.run(run())


@contextlib.contextmanager
def stopped(process: int) -> Iterator[None]:
    """A process stands still for as long as the block lasts."""
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


def stalled(server: Server) -> float:
    """Seconds, as ``/metrics`` says."""
    (seconds,) = server.samples("qllm_stalled_seconds").values()
    return seconds


def wait_until_stalled(server: Server) -> None:
    """For longer than the limit."""
    deadline = time.monotonic() + 60
    while stalled(server) <= 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.covers("EngineCore stands still", "eager")
@pytest.mark.parametrize("early", [False, True])
def test_an_engine_that_stands_still_is_not_healthy(
    server: Server, client: openai.AsyncOpenAI, early: bool
) -> None:
    engine = processes(server)["EngineCore"]

    async def run() -> None:
        assert await asyncio.to_thread(stalled, server) == 0
        request = asyncio.create_task(ask(client, 30, 1900, 0, stream=False)) if early else None
        if request is not None:
            await asyncio.sleep(0.3)
        with stopped(engine):
            if request is None:  # the engine has said that it has nothing to do
                await call(server, "/health", "GET")
                request = asyncio.create_task(ask(client, 30, 3, 0, stream=False))
            await asyncio.to_thread(wait_until_stalled, server)
            with pytest.raises(httpx.HTTPStatusError) as raised:
                await call(server, "/health", "GET")
            assert raised.value.response.status_code == 503
            assert "no step for" in raised.value.response.text
            status = json.loads(await call(server, "/qllm/status", "GET"))
            assert status["state"] == "stalled" and status["stalled_seconds"] > 2
            assert not request.done()
        assert (await request).how == "length"
        await call(server, "/health", "GET")
        assert await asyncio.to_thread(stalled, server) == 0

    asyncio.run(run())
