# SPDX-License-Identifier: Apache-2.0
"""Who reads what a server says of itself, so that requests go on beside them.

What is written down in Python, on whatever thread, keeps the server's loop waiting: threads take
turns, a few milliseconds each. So readers are answered one after another, a long text is made on
the loop itself in parts of a millisecond, and who comes while many wait is sent away.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

PART_SECONDS = 0.001
RETRY = {"Retry-After": "1"}


class TooManyReaders(RuntimeError):
    """As many read already as may at a time."""


class Readers:
    """Of one route of one API server; used on its loop only.

    Args:
        limit: how many there may be at a time, those who wait for their turn included.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._turn = asyncio.Lock()
        self._count = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """A block in which no other reader is answered.

        Raises:
            TooManyReaders: others have to be answered first.
        """
        if self._count >= self._limit:
            raise TooManyReaders(
                f"{self._limit} readers are being answered; allowed: {self._limit} at a time"
            )
        self._count += 1
        try:
            async with self._turn:
                yield
        finally:
            self._count -= 1


async def written(parts: Iterable[bytes]) -> bytes:
    """All parts, which are made on the loop, with as much time for everything else in between."""
    text = bytearray()
    due = time.perf_counter() + PART_SECONDS
    for part in parts:
        text += part
        if time.perf_counter() >= due:
            await asyncio.sleep(PART_SECONDS)
            due = time.perf_counter() + PART_SECONDS
    return bytes(text)
