# SPDX-License-Identifier: Apache-2.0
"""One at a time on the event loop, and the loop left to others after each."""

from __future__ import annotations

import asyncio

# What took longer than this gives the loop to others, for so many times as long.
SHORT_SECONDS, REST = 0.005, 4.0
LONGEST_REST_SECONDS = 2.0


class Turns:
    """First come, first served. Belongs to one event loop."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def take(self) -> Turn:
        """Wait for one's turn; it lasts until it is given back."""
        await self._lock.acquire()
        return Turn(self._lock)


class Turn:
    """The right to keep the event loop busy, until :meth:`give_back`."""

    def __init__(self, lock: asyncio.Lock) -> None:
        self._lock: asyncio.Lock | None = lock
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()

    def give_back(self) -> None:
        """Let the next one in, soon; called again it does nothing."""
        lock, self._lock = self._lock, None
        if lock is None:
            return
        held = self._loop.time() - self._began
        # An urgent request needs the loop a dozen times before it is with the engine. If the next
        # large one came at once, it would meet as many of them.
        rest = min(REST * held, LONGEST_REST_SECONDS) if held > SHORT_SECONDS else 0.0
        self._loop.call_later(rest, lock.release)
