# SPDX-License-Identifier: Apache-2.0
"""Clients of both classes that ask on and on, and what each of their requests came to."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httpx
import openai

from tests.serve.server import MODEL

LS, BE = "latency_sensitive", "best_effort"
COMPLETE = "complete"
# What a request asks for: class, tokens in and out, whether as a stream.
KINDS = ((LS, 60, 24, True), (LS, 60, 24, False), (BE, 700, 200, True), (BE, 700, 200, False))


@dataclass(frozen=True)
class Outcome:
    """What a request came to.

    Attributes:
        cls: its class.
        stream: whether it was one.
        chunks: of the answer that had come.
        how: ``complete``; the name and text of the error that the client raised; or what was
            silently wrong.
        lost: whether the client could take it for an answer, and it was none.
    """

    cls: str
    stream: bool
    chunks: int
    how: str
    lost: bool = False


@dataclass
class Traffic:
    """The requests of all clients so far."""

    url: str
    key: str
    ended: list[Outcome] = field(default_factory=list)
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def client(self, cls: str, length: int, tokens: int, stream: bool) -> None:
        """Ask until told to stop; errors are noted and answered by asking again."""
        async with openai.AsyncOpenAI(
            base_url=f"{self.url}/v1", api_key=self.key, max_retries=0, timeout=120
        ) as client:
            while not self._stop.is_set():
                outcome = await self._ask(client, cls, length, tokens, stream)
                async with self._news:
                    self.ended.append(outcome)
                    self._news.notify_all()
                if outcome.how != COMPLETE:
                    await asyncio.sleep(0.2)

    async def _ask(
        self, client: openai.AsyncOpenAI, cls: str, length: int, tokens: int, stream: bool
    ) -> Outcome:
        chunks, finish, text = 0, None, 0
        try:
            answer = await client.completions.create(
                model=MODEL,
                prompt=[random.randrange(3, 200) for _ in range(length)],
                max_tokens=tokens,
                stream=stream,
                extra_body={"priority": 0 if cls == LS else 9, "ignore_eos": True},
            )
            if isinstance(answer, openai.AsyncStream):
                async for chunk in answer:
                    chunks += 1
                    if chunk.choices:
                        finish = chunk.choices[0].finish_reason or finish
            else:
                finish = answer.choices[0].finish_reason
                text = answer.usage.completion_tokens if answer.usage else 0
        # A connection that breaks while a stream is read may be httpx's error, not openai's.
        except (openai.APIError, httpx.HTTPError) as error:
            return Outcome(cls, stream, chunks, f"{type(error).__name__}: {error}")
        if finish == "length" and (stream or text == tokens):
            return Outcome(cls, stream, chunks, COMPLETE)
        return Outcome(cls, stream, chunks, f"finish reason {finish}, no error", lost=True)

    async def more(self, requests: int, timeout_seconds: float = 120) -> None:
        """Wait until so many more requests have ended."""
        goal = len(self.ended) + requests
        async with asyncio.timeout(timeout_seconds), self._news:
            await self._news.wait_for(lambda: len(self.ended) >= goal)

    def lost(self) -> list[Outcome]:
        """Requests that ended without an answer and without an error."""
        return [outcome for outcome in self.ended if outcome.lost]

    def errors(self) -> list[Outcome]:
        """Requests that ended with an error."""
        return [o for o in self.ended if o.how != COMPLETE and not o.lost]


@contextlib.asynccontextmanager
async def traffic(url: str, key: str, each: int = 1) -> AsyncIterator[Traffic]:
    """Run ``each`` clients of each kind at once; all requests have ended after the block."""
    running = Traffic(url, key)
    async with asyncio.TaskGroup() as group:
        for kind in KINDS * each:
            group.create_task(running.client(*kind))
        try:
            yield running
        finally:
            running._stop.set()


def chunk_times(url: str, key: str, tokens: int) -> list[float]:
    """Seconds after the beginning of an answer at which each chunk of its stream came."""
    with openai.OpenAI(base_url=f"{url}/v1", api_key=key) as client:
        stream = client.completions.create(
            model=MODEL,
            prompt="once upon a time",
            max_tokens=tokens,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        began = time.monotonic()
        return [time.monotonic() - began for _ in stream]
