# SPDX-License-Identifier: Apache-2.0
"""An event loop whose clock goes on when it is told to, and when nobody has anything to do."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class VirtualLoop(asyncio.SelectorEventLoop):
    """Sleeps take no time; what takes time says so with :meth:`work`."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._select = self._selector.select  # type: ignore[attr-defined]
        self._selector.select = self._advance  # type: ignore[attr-defined]

    def time(self) -> float:
        return self._now

    def work(self, seconds: float) -> None:
        """Keep the loop busy."""
        self._now += seconds

    def _advance(self, timeout: float | None) -> Any:
        assert timeout is not None, "everybody waits for somebody"
        self._now += timeout
        return self._select(0)


def run(main: Coroutine[Any, Any, T]) -> T:
    """As ``asyncio.run``, in virtual time."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(main)
    finally:
        loop.close()


def loop() -> VirtualLoop:
    """The one that runs."""
    running = asyncio.get_running_loop()
    assert isinstance(running, VirtualLoop)
    return running
