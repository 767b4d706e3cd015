# SPDX-License-Identifier: Apache-2.0
"""Sends one request to an OpenAI-compatible server and notes when each token came.

Raw HTTP rather than an OpenAI client: client and server share the processor, and building an object
for every token would cost more of it than reading a line.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import aiohttp
import msgspec

from benchmarks.load.streams import Job, prompt_of
from benchmarks.record.record import FAILED, OK, UNANSWERED, Outcome, Request
from benchmarks.systems.server import Server

# Longer than any run: a run ends by cancelling.
TIMEOUT_SECONDS = 3600.0
# One line holds the whole prompt's token ids, in digits.
READ_BYTES = 1 << 20
# A connection that was idle for longer is not used again: vLLM closes it after five seconds, and
# may do so just when a request is sent.
KEEP_SECONDS = 2.0


class Usage(msgspec.Struct):
    """How many tokens came so far."""

    completion_tokens: int = 0


class Choice(msgspec.Struct):
    """What is new in one chunk; ``token_ids`` are vLLM's own extension."""

    token_ids: list[int] | None = None


class Trouble(msgspec.Struct):
    """Why a stream ends early."""

    message: str = ""


class Chunk(msgspec.Struct):
    """One server-sent event of a streamed completion, as far as it matters here."""

    choices: list[Choice] = []
    usage: Usage | None = None
    error: Trouble | None = None


@dataclass
class Exchange:
    """One request on its way. Times are ``time.monotonic()``."""

    job: Job
    priority: int | None
    scheduled: float
    sent: float = 0.0
    tokens: list[float] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    end: float | None = None
    outcome: Outcome = UNANSWERED
    error: str | None = None

    def request(self, began: float) -> Request:
        """For the record, with times since ``began``."""
        pairs = zip(self.tokens, self.tokens[1:], strict=False)
        return Request(
            kind=self.job.kind,
            number=self.job.number,
            priority=self.priority,
            prompt=self.job.prompt,
            output=self.job.output,
            scheduled=self.scheduled - began,
            sent=self.sent - began,
            first=self.tokens[0] - began if self.tokens else None,
            gaps_us=[round((b - a) * 1e6) for a, b in pairs],
            end=None if self.end is None else self.end - began,
            outcome=self.outcome,
            error=self.error,
        )


class Client:
    """Requests to one server: an async context manager.

    Args:
        server: that answers.
        seed: of the prompts.
        priorities: class to priority; None for a server that takes none.
    """

    def __init__(self, server: Server, seed: int, priorities: Mapping[str, int] | None) -> None:
        self.url, self.model = server.url, server.model
        self.seed, self.priorities = seed, priorities
        self.exchanges: list[Exchange] = []

    async def __aenter__(self) -> "Client":
        self.session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS),
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_SECONDS),
            read_bufsize=READ_BYTES,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()

    async def get(self, path: str) -> str:
        """The body of a page beside ``/v1``; aiohttp.ClientError where there is none."""
        async with self.session.get(self.url.removesuffix("/v1") + path) as answer:
            answer.raise_for_status()
            return await answer.text()

    async def send(self, job: Job, scheduled: float) -> Exchange:
        """Send and stay until the request is answered or fails. Cancelled, it is unanswered."""
        priority = None if self.priorities is None else self.priorities[job.kind]
        exchange = Exchange(job, priority, scheduled)
        self.exchanges.append(exchange)
        body: dict[str, object] = {
            "model": self.model,
            "prompt": prompt_of(self.seed, job),
            "max_tokens": job.output,
            "min_tokens": job.output,
            "ignore_eos": True,
            "temperature": 0.0,
            "stream": True,
            # A token may have no text of its own (half a UTF-8 character), so chunks say how many.
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
            "return_token_ids": True,
        }
        if priority is not None:
            body["priority"] = priority
        exchange.sent = time.monotonic()
        try:
            await self._stream(body, exchange)
            if exchange.error is None and len(exchange.tokens) != job.output:
                exchange.error = f"{len(exchange.tokens)} of {job.output} tokens came"
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            exchange.error = f"{type(error).__name__}: {error}"
        exchange.outcome = OK if exchange.error is None else FAILED
        exchange.end = time.monotonic()
        return exchange

    async def _stream(self, body: dict[str, object], exchange: Exchange) -> None:
        async with self.session.post(f"{self.url}/completions", json=body) as answer:
            if answer.status != 200:
                exchange.error = f"HTTP {answer.status}: {(await answer.text())[:300]}"
                return
            async for line in answer.content:
                now = time.monotonic()
                if not line.startswith(b"data: {"):
                    continue
                chunk = CHUNK.decode(line[6:])
                if chunk.error is not None:
                    exchange.error = f"in the stream: {chunk.error.message}"
                    return
                for choice in chunk.choices:
                    exchange.token_ids += choice.token_ids or ()
                if chunk.usage is not None:
                    new = chunk.usage.completion_tokens - len(exchange.tokens)
                    exchange.tokens += [now] * new


CHUNK = msgspec.json.Decoder(Chunk)
