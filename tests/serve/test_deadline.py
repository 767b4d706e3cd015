# SPDX-License-Identifier: Apache-2.0
"""A server that was told to end finishes what it has within ``--shutdown-timeout``, or says no."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import openai
import pytest

from tests.serve.server import STRICT, Server, serve
from tests.serve.standstill import Ending, ask

pytestmark = [pytest.mark.server, pytest.mark.slow]


async def asked_while_it_ends(server: Server, *asked: tuple[int, int, bool]) -> list[Ending]:
    """How requests, as ``ask`` takes them, end if SIGTERM comes after the first token of each."""
    client = openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    tasks = [asyncio.create_task(ask(client, 20, *each)) for each in asked]
    prompts = 0.0
    while prompts < 20 * len(asked):
        samples = await asyncio.to_thread(server.samples, "qllm_prompt_tokens_total")
        prompts = sum(samples.values())
    server.process.send_signal(signal.SIGTERM)
    endings = await asyncio.gather(*tasks)
    await client.close()
    return endings


def test_what_has_not_ended_by_then_ends_with_an_error(tiny_model: Path, tmp_path: Path) -> None:
    # Streams and whole answers of both classes, and one that is short enough.
    asked = [(1900, p, stream) for p in (0, 9) for stream in (True, False)] + [(8, 0, True)]
    with serve(tiny_model, tmp_path / "log", *STRICT, "--shutdown-timeout", "1") as server:
        *late, timely = asyncio.run(asked_while_it_ends(server, *asked))
        assert timely.how == "length"
        # Not one may be taken for a whole answer; what has no byte can be asked of another server.
        for n, ending in enumerate(late):
            error = "APIError: " if n % 2 == 0 else "InternalServerError: Error code: 503"
            assert ending.how and ending.how.startswith(error), [e.how for e in late]
            assert "shut down before the answer was complete" in ending.how
        assert server.has_ended(within_seconds=30), server.tail()


@pytest.mark.thorough
def test_each_of_several_api_servers_finishes_what_it_has(tiny_model: Path, tmp_path: Path) -> None:
    asked = [(200, n % 2, n < 4) for n in range(8)]
    options = ("--shutdown-timeout", "120", "--api-server-count", "2")
    with serve(tiny_model, tmp_path / "log", *STRICT, *options) as server:
        endings = asyncio.run(asked_while_it_ends(server, *asked))
        assert {ending.how for ending in endings} == {"length"}, [e.how for e in endings]
        assert server.has_ended(within_seconds=60), server.tail()
