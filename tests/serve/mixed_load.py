# SPDX-License-Identifier: Apache-2.0
"""Clients of every kind at once: both classes, streams, stop strings, some that vanish or err.

Requests are drawn from a pool, so each is asked many times, and must get the same answer each time.
"""

from __future__ import annotations

import asyncio
import json
import random
import string
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.serve.server import MODEL

Json = dict[str, Any]
Choices = dict[int, tuple[str, str]]  # index: text, finish reason

LS, BE = "latency_sensitive", "best_effort"
# How a client says its class: the fields of the body, the headers.
SAYS: dict[str, list[tuple[Json, dict[str, str]]]] = {
    LS: [({}, {}), ({"priority": -1}, {}), ({"service_tier": "priority"}, {})],
    BE: [({"priority": 7}, {}), ({"service_tier": "flex"}, {}), ({}, {"X-Vllm-Priority": "1"})],
}
REFUSED: list[Json] = [
    {"priority": 1, "extra_body": {"priority": 2}},
    {"priority": "high"},
    {"priority": 2**63},
    {"max_tokens": -1},
    {"n": 0},
]
# A request that has taken this long is stuck. On a busy machine those of the least urgent priority
# wait for minutes.
PATIENCE_S = 300.0


@dataclass(frozen=True)
class Request:
    """A request of the pool.

    Attributes:
        number: of it in the pool.
        cls: name of its class.
        path: of the API.
        body: what is asked.
        headers: of HTTP.
    """

    number: int
    cls: str
    path: str
    body: Json
    headers: dict[str, str]


def pool(seed: int, count: int) -> list[Request]:
    """Requests that differ in class, length, sampling and form; some share the start of a prompt.

    Args:
        seed: of all choices.
        count: how many.
    """
    rng = random.Random(seed)

    def text(length: int) -> str:
        return "".join(rng.choices(string.ascii_lowercase + " ", k=length))

    starts = ["", "", *(text(300) for _ in range(3))]
    made = []
    for number in range(count):
        cls = rng.choice((LS, LS, BE, BE, BE))
        longest = 150 if cls == LS else rng.choice((200, 1500))
        prompt = rng.choice(starts) + text(rng.randint(1, longest))
        said, headers = rng.choice(SAYS[cls])
        body: Json = {"model": MODEL, "max_tokens": rng.choice((1, 4, 12, 40)), "temperature": 0}
        body |= said | {"stream": rng.random() < 0.5}
        if rng.random() < 0.3:
            body |= {"temperature": 1.0, "seed": number, "n": rng.choice((1, 2, 3))}
        if rng.random() < 0.3:
            body["stop"] = [rng.choice("aeinorst"), "qu"]
        if rng.random() < 0.7:
            body["ignore_eos"] = True
        if rng.random() < 0.5:
            path, body = "/v1/completions", body | {"prompt": prompt}
        else:
            path = "/v1/chat/completions"
            body |= {"messages": [{"role": "user", "content": prompt}]}
        made.append(Request(number, cls, path, body, headers))
    return made


@dataclass
class Tally:
    """What clients have seen.

    Attributes:
        sent: choices asked for, by class; those of refused requests left out.
        ended: choices that were answered, by class and by outcome as the engine counts it.
        either: those among them that a stop string ended, which the engine may not know.
        left: choices of clients that vanished, by class.
        admitted: requests among them that had begun to be answered, by class.
        refused: requests that were refused, as they had to be.
        wrong: what must not be, in words.
    """

    sent: Counter[str] = field(default_factory=Counter)
    ended: Counter[tuple[str, str]] = field(default_factory=Counter)
    either: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    admitted: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    wrong: list[str] = field(default_factory=list)


class Vanished(Exception):
    """The client has gone away by its own choice; ``begun``: after a part of the answer."""

    def __init__(self, begun: bool) -> None:
        super().__init__()
        self.begun = begun


class MixedLoad:
    """Clients of one server.

    Args:
        url: of the server.
        requests: the pool.
        seed: of who asks what, and who vanishes when.
        clients: how many ask at once.
    """

    def __init__(self, url: str, requests: list[Request], seed: int, clients: int) -> None:
        self.tally = Tally()
        self._url = url
        self._requests = requests
        self._rng = random.Random(seed)
        self._clients = clients
        self._answers: dict[int, Choices] = {}

    async def run(self, count: int) -> None:
        """Send ``count`` requests; returns when none is open any more."""
        left = iter(range(count))
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(self._url, connector=connector) as session:

            async def client() -> None:
                for _ in left:
                    await self._one(session)

            await asyncio.gather(*(client() for _ in range(self._clients)))

    async def _one(self, session: aiohttp.ClientSession) -> None:
        rng, tally = self._rng, self.tally
        request = rng.choice(self._requests)
        if rng.random() < 0.03:
            body = request.body | rng.choice(REFUSED)
            async with session.post(request.path, json=body) as response:
                if response.status != 400:
                    tally.wrong.append(f"{response.status} for {body}")
                tally.refused += 1
            return
        # Some stay for so many seconds, some for so many chunks, most to the end.
        leaves = rng.random()
        seconds = rng.uniform(0, 0.5) if leaves < 0.1 else PATIENCE_S
        chunks = rng.randint(1, 6) if 0.1 < leaves < 0.2 else None
        choices = request.body.get("n", 1)
        tally.sent[request.cls] += choices
        try:
            async with asyncio.timeout(seconds):
                answer = await self._answer(session, request, chunks)
        except Vanished as vanished:
            tally.left[request.cls] += choices
            tally.admitted[request.cls] += vanished.begun
        except TimeoutError:
            tally.left[request.cls] += choices
            if seconds == PATIENCE_S:
                tally.wrong.append(f"no answer to {request} in {seconds} s")
        except (aiohttp.ClientError, ValueError, KeyError) as error:
            tally.wrong.append(f"{type(error).__name__} {error} for {request}")
        else:
            self._check(request, answer)

    async def _answer(
        self, session: aiohttp.ClientSession, request: Request, chunks: int | None
    ) -> Choices:
        async with session.post(
            request.path, json=request.body, headers=request.headers
        ) as response:
            if response.status != 200:
                raise ValueError(f"{response.status}: {await response.text()}")
            if not request.body["stream"]:
                whole = await response.json()
                return {c["index"]: (_text(c), c["finish_reason"]) for c in whole["choices"]}
            texts: dict[int, str] = {}
            ends: dict[int, str] = {}
            number = 0
            async for choice in _events(response):
                index, text = choice["index"], _text(choice)
                if index in ends:
                    raise ValueError(f"choice {index} goes on after its end")
                texts[index] = texts.get(index, "") + text
                if choice["finish_reason"]:
                    ends[index] = choice["finish_reason"]
                number += 1
                if number == chunks:
                    response.close()
                    raise Vanished(begun=True)
            return {index: (texts[index], ends[index]) for index in texts}

    def _check(self, request: Request, answer: Choices) -> None:
        tally = self.tally
        if sorted(answer) != list(range(request.body.get("n", 1))):
            tally.wrong.append(f"choices {sorted(answer)} for {request}")
        if self._answers.setdefault(request.number, answer) != answer:
            before = self._answers[request.number]
            tally.wrong.append(f"another answer, {answer} after {before}, for {request}")
        for _, end in answer.values():
            if end == "stop" and "stop" in request.body:
                tally.either[request.cls] += 1
            else:
                tally.ended[request.cls, end] += 1


def _text(choice: Json) -> str:
    if "text" in choice:
        return str(choice["text"])
    return str(choice.get("message", choice.get("delta", {})).get("content") or "")


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[Json]:
    """The choices of a stream's chunks; ValueError unless it ends once, with ``[DONE]``."""
    done = 0
    async for line in response.content:
        if not line.startswith(b"data: "):
            continue
        data = line.removeprefix(b"data: ").strip()
        if done:
            raise ValueError("a stream goes on after its end")
        if data == b"[DONE]":
            done += 1
            continue
        for choice in json.loads(data)["choices"]:
            yield choice
    if not done:
        raise ValueError("a stream was cut short")
