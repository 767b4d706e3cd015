# SPDX-License-Identifier: Apache-2.0
"""Prompts of the most urgent class never queue behind others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from vllm.renderers.base import _SwappableExecutor
from vllm.utils.async_utils import make_async

from vllm_qllm.config import PriorityConfig
from vllm_qllm.intake.front_pool import NAME, FrontPool
from vllm_qllm.intake.limits import Limits
from vllm_qllm.intake.passage import Passage, passage

LIMITS = Limits.of(PriorityConfig(), 4096)


async def of_level(level: int | None, work: Callable[[], Any]) -> Any:
    """Await what ``work`` gives while a request of this class is being served."""
    passage.set(None if level is None else Passage(LIMITS, level))
    return await work()


def test_an_urgent_prompt_is_done_while_less_urgent_ones_run_and_wait() -> None:
    async def run() -> None:
        executor = _SwappableExecutor(1)
        pool = FrontPool(executor)
        release = threading.Event()
        slow = make_async(release.wait, executor)
        quick = make_async(lambda: threading.current_thread().name, executor)
        hogs = [asyncio.create_task(of_level(1, lambda: slow(30))) for _ in range(50)]
        await asyncio.sleep(0)
        unknown = asyncio.create_task(of_level(None, quick))
        urgent = asyncio.create_task(of_level(0, quick))
        assert (await asyncio.wait_for(urgent, 10)).startswith(NAME)
        assert not any(hog.done() for hog in hogs)
        release.set()
        assert not (await unknown).startswith(NAME)
        await asyncio.gather(*hogs)
        pool.shutdown()
        executor.shutdown()

    asyncio.run(run())


def test_threads_that_hang_are_left_behind_in_both() -> None:
    async def run() -> None:
        executor = _SwappableExecutor(1)
        pool = FrontPool(executor)
        release = threading.Event()
        hanging = [
            asyncio.create_task(of_level(level, lambda: make_async(release.wait, executor)(30)))
            for level in (0, 1)
        ]
        await asyncio.sleep(0.01)
        executor.replace_inner()
        for level in (0, 1):
            work = make_async(lambda: "done", executor)
            assert await asyncio.wait_for(of_level(level, work), 10) == "done"
        release.set()
        await asyncio.gather(*hanging)
        pool.shutdown()
        executor.shutdown()

    asyncio.run(run())
