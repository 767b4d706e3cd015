# SPDX-License-Identifier: Apache-2.0
"""Into the engine: less urgent requests one after the other, urgent ones at once."""

from __future__ import annotations

import asyncio

from vllm_qllm.config import PriorityConfig
from vllm_qllm.intake.admission import Admission
from vllm_qllm.intake.limits import Limits
from vllm_qllm.intake.passage import Passage, passage

LIMITS = Limits.of(PriorityConfig(), 4096)


class Engine:
    """What an ``AsyncLLM`` is here: requests are added, and stay until they are let in."""

    def __init__(self) -> None:
        self.adding: list[str] = []
        self.go_on = asyncio.Event()

    async def add_request(self, name: str, *, priority: int = 0) -> str:
        self.adding.append(name)
        await self.go_on.wait()
        return name


async def added(engine: Engine, level: int | None, name: str) -> str:
    """Add a request while it is being served, by a handler that has said nothing of its class."""
    served = None if level is None else Passage(LIMITS, 1)
    passage.set(served)
    try:
        return await engine.add_request(name, priority=LIMITS.config.usual_priority(level or 0))
    finally:
        assert served is None or served.level == level


def test_only_less_urgent_ones_wait_for_each_other() -> None:
    async def run() -> None:
        engine = Engine()
        Admission(engine)
        asked = [(1, "first"), (1, "second"), (0, "urgent"), (None, "offline"), (0, "urgent, too")]
        tasks = [asyncio.create_task(added(engine, level, name)) for level, name in asked]
        await asyncio.sleep(0.01)
        assert engine.adding == ["first", "urgent", "offline", "urgent, too"]
        engine.go_on.set()
        assert await asyncio.gather(*tasks) == [name for _, name in asked]

    asyncio.run(run())


def test_one_that_fails_or_is_cancelled_lets_the_next_one_in() -> None:
    async def run() -> None:
        engine = Engine()
        Admission(engine)
        first, second, third = (
            asyncio.create_task(added(engine, 1, name)) for name in ("first", "second", "third")
        )
        await asyncio.sleep(0.01)
        first.cancel()
        second.cancel()
        await asyncio.sleep(0.2)
        assert engine.adding == ["first", "third"]
        engine.go_on.set()
        assert await asyncio.wait_for(third, 5) == "third"

    asyncio.run(run())
