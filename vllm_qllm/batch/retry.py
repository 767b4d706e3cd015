# SPDX-License-Identifier: Apache-2.0
"""When to ask again: a server that has too much to do, or is not there for a while."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

# Answers that another try may change: told to wait, told to come back, in between, restarting.
AGAIN = (408, 425, 429, 502, 503, 504)
MAX_WAIT = 60.0


class Retry:
    """Waits before tries, for all requests together: who is told to wait makes all wait.

    Args:
        patience: seconds without any answer after which nothing more is tried.
        clock: seconds.
    """

    def __init__(self, patience: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience, self._clock = patience, clock
        self._last_answer = self._not_before = clock()

    def answered(self) -> None:
        """The server has answered a request."""
        self._last_answer = self._clock()

    @property
    def is_over(self) -> bool:
        """Whether patience has run out."""
        return self._clock() - self._last_answer > self._patience

    def later(self, tries: int, retry_after: str | None) -> None:
        """A try has failed.

        Args:
            tries: how many of this request have.
            retry_after: the header of the answer, if there was one; a number of seconds.
        """
        seconds = min(MAX_WAIT, 0.5 * 2 ** min(tries, 10))
        if retry_after is not None and retry_after.isascii() and retry_after.isdigit():
            seconds = float(retry_after[:6])
        self._not_before = max(self._not_before, self._clock() + seconds)

    async def wait(self) -> None:
        """Until the next try may be made; a little apart, so that not all come at once."""
        while (left := self._not_before - self._clock()) > 0:  # noqa: ASYNC110 - it may be moved on
            await asyncio.sleep(left + random.uniform(0, 0.2))
