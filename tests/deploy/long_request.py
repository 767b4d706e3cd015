# SPDX-License-Identifier: Apache-2.0
"""One request that is surely in flight while something breaks."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import openai

from tests.serve.server import MODEL


@dataclass(frozen=True)
class LongRequest:
    """A request that is being answered.

    Attributes:
        request_id: that nginx logs it with.
        finish_reason: of the whole answer; raises what the client raises.
    """

    request_id: str
    finish_reason: asyncio.Task[str | None]


@contextlib.asynccontextmanager
async def long_request(
    url: str, key: str, tokens: int, *, stream: bool = True
) -> AsyncIterator[LongRequest]:
    """An urgent request that takes seconds; given up at the end of the block.

    Args:
        url: of a replica or of what is before them, without a path.
        key: of a tenant.
        tokens: of the answer.
        stream: the first token has come when the block begins; else nothing has.
    """
    request_id = f"long-{time.monotonic_ns()}"
    async with openai.AsyncOpenAI(
        base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=300
    ) as client:
        begun = asyncio.Event()

        async def finish_reason() -> str | None:
            answer: Any = await client.completions.create(
                model=MODEL,
                prompt="once upon a time",
                max_tokens=tokens,
                stream=stream,
                extra_body={"ignore_eos": True},
                extra_headers={"X-Request-Id": request_id},
            )
            if not stream:
                return str(answer.choices[0].finish_reason)
            reason = None
            async for chunk in answer:
                begun.set()
                reason = chunk.choices[0].finish_reason or reason
            return reason

        task = asyncio.create_task(finish_reason())
        task.add_done_callback(lambda _: begun.set())
        if stream:
            await begun.wait()
        try:
            yield LongRequest(request_id, task)
        finally:
            task.cancel()
            await asyncio.wait([task])
