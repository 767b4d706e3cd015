# SPDX-License-Identifier: Apache-2.0
"""The steady stream of small urgent requests, each timed from the moment it was due."""

import asyncio
import time
from typing import Any

import aiohttp

from benchmarks.record.record import LS
from benchmarks.systems import LOWER_FIRST
from benchmarks.systems.server import SERVED_NAME, Server

PLAIN, REGEX, SCHEMA = "plain", "regex", "schema"
KINDS = (PLAIN, REGEX, SCHEMA)
EVERY_SECONDS = 0.2
TOKENS = 4


def body(kind: str, number: int) -> dict[str, Any]:
    """A small urgent request; a grammar of its own, which no cache holds, where it has one."""
    fields: dict[str, Any] = {
        "model": SERVED_NAME,
        "prompt": f"urgent {number}",
        "max_tokens": TOKENS,
        "priority": LOWER_FIRST[LS],
    }
    if kind == REGEX:
        fields["structured_outputs"] = {"regex": f"[ab]{{1,{number % 90 + 5}}}{number}"}
    if kind == SCHEMA:
        schema = {"type": "object", "properties": {f"a{number}": {"type": "integer"}}}
        fields["structured_outputs"] = {"json": schema}
    return fields


class Urgent:
    """Sends them to one server; no two have the same number."""

    def __init__(self, server: Server, session: aiohttp.ClientSession) -> None:
        self._url, self._session = f"{server.url}/completions", session
        self._number = 0

    async def one(self, kind: str) -> float:
        """Seconds until one is answered; infinite where it is refused or the server is gone."""
        self._number += 1
        began = time.monotonic()
        try:
            async with self._session.post(self._url, json=body(kind, self._number)) as answer:
                await answer.read()
                return time.monotonic() - began if answer.status == 200 else float("inf")
        except (aiohttp.ClientError, TimeoutError):
            return float("inf")

    async def stream(self, kind: str, seconds: float, patience: float) -> list[float]:
        """Send one every EVERY_SECONDS, whoever was answered before.

        Args:
            kind: one of KINDS.
            seconds: for which they are sent.
            patience: how long the last ones are waited for; what is not answered then has waited
                since it was due.

        Returns:
            Seconds of each, in the order in which they were due.
        """
        began = time.monotonic()
        sent: list[tuple[float, asyncio.Task[float]]] = []
        while (due := began + len(sent) * EVERY_SECONDS) < began + seconds:
            await asyncio.sleep(due - time.monotonic())
            sent.append((due, asyncio.create_task(self._from(due, kind))))
        await asyncio.wait([task for _, task in sent], timeout=patience)
        now = time.monotonic()
        for _, task in sent:
            task.cancel()
        return [
            task.result() if task.done() and not task.cancelled() else now - due
            for due, task in sent
        ]

    async def _from(self, due: float, kind: str) -> float:
        late = time.monotonic() - due
        return await self.one(kind) + late
