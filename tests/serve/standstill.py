# SPDX-License-Identifier: Apache-2.0
"""Best-effort work that stands still, suspended, while urgent requests are answered."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass

import httpx
import openai

from tests.serve.server import MODEL, Server
from tests.serve.test_preemption import prompt

# Best-effort work may be held back for an hour: once suspended it stays so.
PATIENT = (
    "--priority-config",
    '{"classes": [{"name": "latency_sensitive", "max_priority": 0},'
    ' {"name": "best_effort", "max_wait_ms": 3600000}]}',
)
SUSPENDED = 'qllm_requests_suspended{class="best_effort"}'


@dataclass
class Ending:
    """How a request ended: when, and with which finish reason or error; None for neither."""

    at: float
    how: str | None


async def ask(
    client: openai.AsyncOpenAI, length: int, out: int, priority: int, stream: bool
) -> Ending:
    """Send a request of ``length`` random tokens and stay until it ends."""
    how: str | None = None
    try:
        answer = await client.completions.create(
            model=MODEL,
            prompt=prompt(random.randrange(2**30), length),
            max_tokens=out,
            stream=stream,
            extra_body={"priority": priority, "ignore_eos": True},
        )
        if isinstance(answer, openai.AsyncStream):
            async for chunk in answer:
                how = chunk.choices[0].finish_reason or how
        else:
            how = answer.choices[0].finish_reason
    # A connection that breaks while a stream is read is httpx's error, not openai's.
    except (openai.APIError, httpx.HTTPError) as error:
        how = f"{type(error).__name__}: {error}"
    return Ending(time.monotonic(), how)


def is_suspended(server: Server) -> bool:
    """Whether a step that holds best-effort requests is suspended now."""
    return server.samples("qllm_requests_suspended")[SUSPENDED] > 0


Tasks = list[asyncio.Task[Ending]]


async def standstill(server: Server, client: openai.AsyncOpenAI) -> tuple[Tasks, Tasks]:
    """Start requests of both classes until a best-effort step is suspended.

    An urgent request that arrives between two steps suspends none: then it is tried again.

    Returns:
        The best-effort and the urgent requests that are still open.
    """
    best_effort: Tasks = []
    urgent: Tasks = []
    for _ in range(10):
        best_effort += [
            asyncio.create_task(ask(client, 1900, 100, 9, n % 2 == 0)) for n in range(8)
        ]
        await asyncio.sleep(random.uniform(0.1, 0.3))
        new = [asyncio.create_task(ask(client, 30, 1900, 0, n == 0)) for n in range(2)]
        urgent += new
        while not all(task.done() for task in new):
            if await asyncio.to_thread(is_suspended, server):
                return [t for t in best_effort if not t.done()], [t for t in urgent if not t.done()]
    raise AssertionError("no step was suspended")
