# SPDX-License-Identifier: Apache-2.0
"""A request that is answered while requests of the other class keep coming."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import string
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import openai

from tests.serve.answers import Answer, Json, assert_same, streamed, whole
from tests.serve.server import MODEL, Server

SUSPENSIONS = 'qllm_suspensions_total{by="latency_sensitive",of="best_effort"}'
TURNS = 20
_salts = itertools.count()


def text(seed: int, length: int) -> str:
    """Letters and spaces; one token each, as the tokenizer of the tests goes by bytes."""
    return "".join(random.Random(seed).choices(string.ascii_lowercase + " ", k=length))


@dataclass(frozen=True)
class Question:
    """A request that uses a feature.

    Attributes:
        path: of the API.
        body: what is asked, without a class.
        shows: is the feature seen in the answer?
        matters: fields of the body without which the answer must be another one.
        stream: ask for a stream; it must say what the whole answer of an idle server says.
    """

    path: str
    body: Json
    shows: Callable[[Answer], bool]
    matters: tuple[str, ...] = ()
    stream: bool = False

    async def ask(self, client: openai.AsyncOpenAI, stream: bool = False, **fields: Any) -> Answer:
        """Ask it now; nothing of it is in the prefix cache: that would leave no prefill."""
        body = self.body | {"cache_salt": f"{next(_salts)}"} | fields
        return await (streamed if stream else whole)(client, self.path, body)

    async def without(self, client: openai.AsyncOpenAI) -> Answer:
        """The answer without what matters."""
        body = {k: v for k, v in self.body.items() if k not in self.matters}
        return await whole(client, self.path, body)


def urgent(number: int) -> Json:
    """A short request of the most urgent class."""
    return {"prompt": text(number, 16), "max_tokens": 1}


def best_effort(number: int) -> Json:
    """A long prefill of the least urgent class."""
    return {"prompt": text(number, 1900), "max_tokens": 1, "service_tier": "flex"}


@contextlib.asynccontextmanager
async def rivals(
    client: openai.AsyncOpenAI, make: Callable[[int], Json], model: str
) -> AsyncIterator[None]:
    """Two clients that send what ``make`` makes, one after another, while the block runs."""
    going = True
    numbers = itertools.count(random.randrange(2**30))

    async def keep_asking() -> None:
        while going:
            await whole(client, "/completions", make(next(numbers)) | {"model": model})

    tasks = [asyncio.create_task(keep_asking()) for _ in range(2)]
    await asyncio.sleep(0.02)
    try:
        yield
    finally:
        going = False
        await asyncio.gather(*tasks)


async def contest(server: Server, question: Question, tier: str, model: str = MODEL) -> None:
    """Ask on the idle server and among rivals; the answers are the same.

    Asked again until a suspension was seen. As nothing else is of the question's class, it was a
    step of the question's that was suspended (``flex``), or that ran on top of one (``priority``).

    Args:
        server: with the policy strict.
        question: to ask.
        tier: to ask it in.
        model: that the rivals ask for.
    """
    async with openai.AsyncOpenAI(
        base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60
    ) as client:
        expected = await question.ask(client, service_tier=tier)
        assert question.shows(expected), expected
        if question.matters:
            assert (await question.without(client)).parts != expected.parts
        before = server.samples("qllm_suspensions")[SUSPENSIONS]
        for _ in range(TURNS):
            async with rivals(client, urgent if tier == "flex" else best_effort, model):
                got = await question.ask(client, question.stream, service_tier=tier)
            assert_same(got, expected)
            assert got.tiers == expected.tiers == {tier}
            if server.samples("qllm_suspensions")[SUSPENSIONS] > before:
                return
    raise AssertionError(f"no step was suspended in {TURNS} turns")
