# SPDX-License-Identifier: Apache-2.0
"""When to ask again: a server that has too much to do, or is not there for a while."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

MAX_WAIT = 60.0


def backoff(times: int) -> float:
    """Seconds to wait after something has failed so many times in a row."""
    return min(MAX_WAIT, 0.5 * 2.0 ** min(times, 10))


def told(retry_after: str | None) -> float | None:
    """How many seconds a ``Retry-After`` asks for, at most a minute; None: it says nothing.

    A server may be there again long before the hour or the day that it names, and one that names
    it by mistake must not end a batch.
    """
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit():
        return min(MAX_WAIT, float(text.lstrip("0")[:9] or 0))
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        date = parsedate_to_datetime(text)
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        return min(MAX_WAIT, max(0.0, (date - datetime.now(UTC)).total_seconds()))
    return None


class Retry:
    """Waits before tries, for all requests together: when one is told to wait, all wait.

    Args:
        patience: for how many seconds it may go on that no request is taken.
        clock: seconds.

    Attributes:
        not_before: when the next try may be made, on this clock.
    """

    def __init__(self, patience: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience, self._clock = patience, clock
        self.not_before = clock()
        self._first_failure: float | None = None
        self._last_failure = self.not_before
        self._rounds = 0

    def now(self) -> float:
        """When a try begins."""
        return self._clock()

    def answered(self) -> None:
        """The server has answered a request."""
        self._first_failure, self._rounds = None, 0

    @property
    def is_over(self) -> bool:
        """Whether patience has run out: it began with the first refusal since the last answer."""
        first = self._first_failure
        return first is not None and self._clock() - first > self._patience

    def later(self, began: float, retry_after: str | None) -> None:
        """A request was not taken.

        Args:
            began: when it was tried. Of tries that were under way together one counts.
            retry_after: the header of the answer, if there was one.
        """
        now = self._clock()
        if began >= self._last_failure:
            self._rounds += 1
            self._last_failure = now
        if self._first_failure is None:
            self._first_failure = now
        # A server may ask for a longer pause, not for none: it would be asked without an end.
        seconds = max(told(retry_after) or 0.0, backoff(self._rounds))
        self.not_before = max(self.not_before, now + seconds)

    async def wait(self) -> None:
        """Until the next try may be made; a little apart, so that not all come at once."""
        while (left := self.not_before - self._clock()) > 0:  # noqa: ASYNC110 - it may be moved on
            await asyncio.sleep(left + random.uniform(0, 0.2))
