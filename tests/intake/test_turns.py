# SPDX-License-Identifier: Apache-2.0
"""Turns: one at a time, in order, and a rest after what took long."""

from __future__ import annotations

import asyncio
import time

from vllm_qllm.intake.turns import REST, SHORT_SECONDS, Turns


def test_one_at_a_time_first_come_first_served() -> None:
    async def run() -> list[tuple[int, str]]:
        turns, seen = Turns(), []

        async def one(number: int) -> None:
            turn = await turns.take()
            seen.append((number, "in"))
            await asyncio.sleep(0)
            seen.append((number, "out"))
            turn.give_back()

        await asyncio.gather(*map(one, range(5)))
        return seen

    assert asyncio.run(run()) == [(n, what) for n in range(5) for what in ("in", "out")]


def test_what_took_long_leaves_the_loop_to_others() -> None:
    async def run() -> float:
        turns = Turns()
        turn = await turns.take()
        began = time.monotonic()
        while time.monotonic() - began < 4 * SHORT_SECONDS:
            pass
        held = time.monotonic() - began
        turn.give_back()
        ended = time.monotonic()
        await turns.take()
        return (time.monotonic() - ended) / held

    assert asyncio.run(run()) >= 0.9 * REST


def test_given_back_twice_is_given_back_once() -> None:
    async def run() -> bool:
        turns = Turns()
        first = await turns.take()
        first.give_back()
        await turns.take()
        first.give_back()
        third = asyncio.create_task(turns.take())
        await asyncio.sleep(0.01)
        found = third.done()
        third.cancel()
        return found

    assert not asyncio.run(run())


def test_who_goes_away_while_waiting_blocks_nobody() -> None:
    async def run() -> None:
        turns = Turns()
        first = await turns.take()
        waiting = asyncio.create_task(turns.take())
        await asyncio.sleep(0)
        waiting.cancel()
        first.give_back()
        await asyncio.wait_for(turns.take(), 5)

    asyncio.run(run())
