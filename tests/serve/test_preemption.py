# SPDX-License-Identifier: Apache-2.0
"""The main job on a real server with the real client: urgent requests nest in best-effort steps."""

from __future__ import annotations

import asyncio
import random

import openai
import pytest

from tests.serve.server import MODEL, Server

pytestmark = pytest.mark.server

Tokens = tuple[list[str], list[float]]


def prompt(seed: int, length: int) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(250) for _ in range(length)]


async def complete(
    client: openai.AsyncOpenAI, tokens: list[int], out: int, priority: int
) -> Tokens:
    answer = await client.completions.create(
        model=MODEL,
        prompt=tokens,
        max_tokens=out,
        temperature=0,
        logprobs=0,
        extra_body={"priority": priority, "ignore_eos": True},
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None and logprobs.tokens and logprobs.token_logprobs
    return logprobs.tokens, [value or 0.0 for value in logprobs.token_logprobs]


@pytest.mark.covers("Completions", "eager", suspended=True)
@pytest.mark.covers("Logprobs", "eager", suspended=True)
def test_urgent_requests_nest_and_all_tokens_are_the_same(server: Server) -> None:
    async def load() -> None:
        client = openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
        nested = 'qllm_nested_steps_total{by="latency_sensitive",of="best_effort"}'
        before = server.samples()[nested]
        for turn in range(20):  # until an arrival has hit a step
            # New prompts each time: the prefix cache is on, and would leave nothing to compute.
            slow = [prompt(1000 * turn + n, 1900) for n in range(6)]
            fast = [prompt(1000 * turn + 100 + n, 40) for n in range(8)]
            tasks = [asyncio.create_task(complete(client, tokens, 4, 9)) for tokens in slow]
            for tokens in fast:
                await asyncio.sleep(0.05)
                tasks.append(asyncio.create_task(complete(client, tokens, 4, 0)))
            together = await asyncio.gather(*tasks)
            alone = [await complete(client, tokens, 4, 0) for tokens in (*slow, *fast)]
            for got, expected in zip(together, alone, strict=True):
                assert got[0] == expected[0]
                assert got[1] == pytest.approx(expected[1], abs=1e-3)
            if server.samples()[nested] > before:
                break
        samples = server.samples()
        assert samples[nested] > before
        assert samples['qllm_suspensions_total{by="latency_sensitive",of="best_effort"}'] > 0
        assert samples['qllm_suspended_seconds_count{class="best_effort"}'] > 0
        assert samples['qllm_requests_suspended{class="best_effort"}'] == 0

    asyncio.run(load())


def test_idle_afterwards(server: Server) -> None:
    samples = server.samples()
    for state in ("running", "waiting", "suspended"):
        for name in ("latency_sensitive", "best_effort"):
            assert samples[f'qllm_requests_{state}{{class="{name}"}}'] == 0
