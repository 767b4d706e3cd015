# SPDX-License-Identifier: Apache-2.0
"""How far the host may be ahead of the device in a step that can be suspended.

On a GPU the host enqueues work long before it runs. Without a bound it would reach the last
yield point while the device computes the first layer, and find nothing left to stop. With one, what
is enqueued when the flag is raised is what a nested step waits for.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

# Between two looks at the device. Linux adds about 50 microseconds to a sleep.
POLL_SECONDS = 20e-6


class Mark(Protocol):
    """A place in the device's queue of work, as ``torch.cuda.Event`` is one."""

    def record(self) -> Any:
        """Put it behind all that has been enqueued on the current stream."""

    def query(self) -> bool:
        """Whether the device has passed it; does not wait."""


class RunAhead:
    """The marks of one step that runs.

    Args:
        window: marks that the device may be short of; at least 1, or it would fall idle while
            the host enqueues what comes next.
        new_mark: makes a mark.
    """

    def __init__(self, window: int, new_mark: Callable[[], Mark]) -> None:
        assert window >= 1
        self._window = window
        self._new_mark = new_mark
        self._ahead: deque[Mark] = deque()

    def mark(self, enough: Callable[[], bool]) -> None:
        """Set a mark here; return once the device is no more than the window behind.

        Args:
            enough: ends the wait, too: whether to stop here anyway. Asked again and again.
        """
        mark = self._new_mark()
        mark.record()
        self._ahead.append(mark)
        while len(self._ahead) > self._window:
            if self._ahead[0].query():
                self._ahead.popleft()
            elif enough():
                return
            else:
                time.sleep(POLL_SECONDS)
