# SPDX-License-Identifier: Apache-2.0
"""Work on the event loop, step by step: how long each takes, and who comes between two of them."""

from __future__ import annotations

import types
from collections.abc import Awaitable, Generator
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Meter(Protocol):
    """Is told of the steps of some work."""

    def begin(self) -> bool:
        """A step begins; False if it is part of one that has begun."""

    def pause(self) -> None:
        """A step that has begun ends."""

    def must_stop(self) -> Awaitable[None] | None:
        """What the next step has to wait for, if for anything."""


async def stepwise(work: Awaitable[T], meter: Meter) -> T:
    """Await ``work``. A step is what it does between two times that it waits for something."""
    return await _steps(work, meter)


@types.coroutine
def _steps(work: Awaitable[T], meter: Meter) -> Generator[Any, Any, T]:
    steps: Any = work.__await__()
    resume, value = steps.send, None
    while True:
        outermost = meter.begin()
        try:
            awaited = resume(value)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        finally:
            if outermost:
                meter.pause()
        try:
            resume, value = steps.send, (yield awaited)
            while (stop := meter.must_stop()) is not None:
                yield from stop.__await__()
        except BaseException as error:  # as if it had been raised where the work waits
            resume, value = steps.throw, error
