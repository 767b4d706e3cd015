# SPDX-License-Identifier: Apache-2.0
"""Turns: one at a time, by class, and a rest after what took long."""

from __future__ import annotations

import asyncio
import math

import pytest

from tests.intake.virtual_loop import loop, run
from vllm_qllm.intake.stepwise import stepwise
from vllm_qllm.intake.turns import (
    IDLE_SECONDS,
    LONGEST_REST_SECONDS,
    REST,
    SHORT_SECONDS,
    Turn,
    Turns,
    withdraw,
)

LONG = 4 * SHORT_SECONDS


async def busy(turn: Turn, seconds: float, pieces: int = 1) -> None:
    """Keep the loop busy, with a moment for others after each piece."""

    async def work() -> None:
        for _ in range(pieces):
            loop().work(seconds)
            await asyncio.sleep(0)

    await stepwise(work(), turn)


async def served(turns: Turns, level: int, seconds: float = LONG, pieces: int = 1) -> float:
    """Work in one's turn; returns when it ended."""
    turn = await turns.take(level)
    try:
        await busy(turn, seconds, pieces)
        return loop().time()
    finally:
        turn.give_back()


def test_one_at_a_time_equals_in_the_order_in_which_they_came() -> None:
    async def main() -> list[tuple[int, str]]:
        turns, seen = Turns(), []

        async def one(number: int) -> None:
            turn = await turns.take(1)
            seen.append((number, "in"))
            await asyncio.sleep(0)
            seen.append((number, "out"))
            turn.give_back()

        await asyncio.gather(*map(one, range(5)))
        return seen

    assert run(main()) == [(n, what) for n in range(5) for what in ("in", "out")]


@pytest.mark.parametrize("pieces", [1, 5])
@pytest.mark.parametrize("level", [0, 1])
def test_the_more_urgent_waits_for_one_piece_at_most_and_for_no_rest(
    level: int, pieces: int
) -> None:
    async def main() -> tuple[float, list[float]]:
        turns = Turns()
        others = [asyncio.ensure_future(served(turns, 2, 0.5, pieces)) for _ in range(4)]
        await asyncio.sleep(0)  # the first of them has its turn
        began = loop().time()
        ended = await served(turns, level, 0.01, 3)
        return ended - began, await asyncio.gather(*others)

    waited, others = run(main())
    assert waited <= 0.5 + 3 * 0.01 + 1e-9
    assert len(set(others)) == 4  # and all of them are served


def test_the_most_urgent_of_those_that_wait_comes_first() -> None:
    async def main() -> list[int]:
        turns, order = Turns(), []

        async def one(level: int) -> None:
            await served(turns, level)
            order.append(level)

        held = await turns.take(0)
        waiting = [asyncio.ensure_future(one(level)) for level in (2, 1, 2, 0, 1, 0)]
        await asyncio.sleep(0)
        held.give_back()
        await asyncio.gather(*waiting)
        return order

    assert run(main()) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("seconds", "rest"),
    [(LONG, REST * LONG), (SHORT_SECONDS, 0.0), (60.0, LONGEST_REST_SECONDS)],
)
def test_what_took_long_leaves_the_loop_to_others(seconds: float, rest: float) -> None:
    async def main() -> float:
        turns = Turns()
        ended = await served(turns, 1, seconds)
        await turns.take(1)
        return loop().time() - ended

    assert run(main()) == pytest.approx(rest)


def test_the_most_urgent_class_takes_no_rest() -> None:
    async def main() -> float:
        turns = Turns()
        ended = await served(turns, 0, 1.0)
        await turns.take(0)
        return loop().time() - ended

    assert run(main()) == 0.0


def test_what_others_take_of_the_loop_is_not_held_against_it() -> None:
    async def main() -> float:
        turns = Turns()
        turn = await turns.take(1)

        async def other() -> None:
            loop().work(1.0)

        async def waits() -> None:
            loop().work(LONG)
            await asyncio.gather(other(), asyncio.sleep(3.0))
            loop().work(LONG)
            turn.give_back()  # as whoever serves it does, in the middle of a step
            loop().work(LONG)

        await stepwise(waits(), turn)
        ended = loop().time() - LONG
        await turns.take(1)
        return loop().time() - ended

    assert run(main()) == pytest.approx(REST * 2 * LONG)


def test_a_class_that_is_found_out_later_counts_from_then_on() -> None:
    async def main() -> tuple[bool, float]:
        turns = Turns()
        lowered = await turns.take(0)
        urgent = turns.ask(0)
        assert not urgent.done()
        lowered.classed(1)
        came = urgent.done()
        urgent.result().give_back()
        await busy(lowered, LONG)
        lowered.give_back()
        ended = loop().time()
        await turns.take(1)
        return came, loop().time() - ended

    assert run(main()) == (True, pytest.approx(REST * LONG))


def test_a_less_urgent_one_that_is_stopped_can_be_cancelled() -> None:
    async def main() -> list[str]:
        turns, seen = Turns(), []
        turn = await turns.take(1)

        async def work() -> None:
            try:
                await asyncio.sleep(0)
                seen.append("went on")
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise

        task = asyncio.ensure_future(stepwise(work(), turn))
        urgent = await turns.take(0)
        for _ in range(5):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        urgent.give_back()
        turn.give_back()
        await turns.take(1)
        return seen

    assert run(main()) == ["cancelled"]


def test_given_back_twice_is_given_back_once() -> None:
    async def main() -> bool:
        turns = Turns()
        first = await turns.take(1)
        first.give_back()
        await turns.take(1)
        first.give_back()
        return turns.ask(1).done()

    assert not run(main())


@pytest.mark.parametrize("has_come", [False, True])
def test_who_goes_away_while_waiting_blocks_nobody(has_come: bool) -> None:
    async def main() -> None:
        turns = Turns()
        first = await turns.take(1)
        waiting = asyncio.create_task(turns.take(1))
        asked = turns.ask(1)
        await asyncio.sleep(0)
        if has_come:
            first.give_back()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        withdraw(asked)
        first.give_back()
        await turns.take(1)

    run(main())


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError])
def test_work_in_steps_ends_as_it_would_alone(error: type[BaseException]) -> None:
    async def main() -> None:
        turns = Turns()

        async def work() -> int:
            with pytest.raises(ZeroDivisionError):
                await asyncio.gather(fails())
            return 3

        async def fails() -> None:
            await asyncio.sleep(0)
            raise ZeroDivisionError

        async def raises() -> None:
            await asyncio.sleep(0)
            raise error

        turn = await turns.take(1)
        assert await stepwise(work(), turn) == 3
        with pytest.raises(error):
            await stepwise(raises(), turn)

    run(main())


@pytest.mark.parametrize("level", [0, 1, 2])
def test_who_waits_for_something_else_than_the_loop_holds_up_nobody(level: int) -> None:
    async def main() -> tuple[float, list[float]]:
        turns = Turns()

        async def downloads() -> float:
            turn = await turns.take(1)
            try:
                await stepwise(asyncio.sleep(10.0), turn)
                return loop().time()
            finally:
                turn.give_back()

        others = [asyncio.ensure_future(downloads()) for _ in range(3)]
        await asyncio.sleep(0)
        return await served(turns, level), await asyncio.gather(*others)

    ended, others = run(main())
    assert ended <= 3 * IDLE_SECONDS + LONG + 1e-9
    assert max(others) <= 10.0 + 3 * IDLE_SECONDS + LONG + 1e-9


def test_who_goes_on_after_a_wait_waits_for_its_turn_again() -> None:
    async def main() -> list[str]:
        turns, seen = Turns(), []

        async def work() -> None:
            await asyncio.sleep(2 * IDLE_SECONDS)
            seen.append("goes on")

        turn = await turns.take(1)
        goes_on = asyncio.ensure_future(stepwise(work(), turn))
        other = await turns.take(1)  # as the first one waits

        async def long() -> None:
            for _ in range(20):
                loop().work(IDLE_SECONDS)
                await asyncio.sleep(0)
            seen.append("other")

        await stepwise(long(), other)
        other.give_back()
        await goes_on
        turn.give_back()
        return seen

    assert run(main()) == ["other", "goes on"]


@pytest.mark.parametrize("urgent", [0, 1])
def test_a_lock_of_who_is_stopped_comes_free(urgent: int) -> None:
    async def main() -> list[int]:
        turns, lock, order = Turns(), asyncio.Lock(), []

        async def locked(level: int) -> None:
            turn = await turns.take(level)

            async def work() -> None:
                async with lock:
                    for _ in range(9):
                        await asyncio.sleep(0)
                    order.append(level)

            try:
                await stepwise(work(), turn)
            finally:
                turn.give_back()

        first = asyncio.ensure_future(locked(2))
        for _ in range(3):
            await asyncio.sleep(0)
        assert lock.locked() and not first.done()
        await asyncio.wait_for(asyncio.gather(first, locked(urgent)), 10)
        return order

    assert run(main()) == [2, urgent]


def test_a_turn_that_was_given_up_can_be_given_back() -> None:
    async def main() -> None:
        turns = Turns()
        turn = await turns.take(1)
        await asyncio.sleep(2 * IDLE_SECONDS)
        other = await turns.take(1)
        stopped = turn.must_stop()
        assert stopped is not None and not stopped.done()
        turn.give_back()
        other.give_back()
        assert turns.ask(1).done()

    run(main())


@pytest.mark.parametrize("patience", [2.0, math.inf])
def test_whoever_has_waited_for_long_enough_comes_next(patience: float) -> None:
    """More urgent bodies that leave most of the loop idle would keep it out for ever."""

    async def main() -> float:
        turns = Turns()

        async def stream() -> None:
            others = []
            for _ in range(120):
                others.append(asyncio.ensure_future(served(turns, 1, 0.02)))
                await asyncio.sleep(1 / 12)
            await asyncio.gather(*others)

        urgent = asyncio.ensure_future(stream())
        await asyncio.sleep(0.5)
        began = loop().time()
        turn = await turns.take(2, patience)
        await busy(turn, 0.02, 5)
        turn.give_back()
        waited = loop().time() - began
        await urgent
        return waited

    waited = run(main())
    assert waited < 2.3 if patience == 2.0 else waited > 5


def test_who_is_stopped_for_long_enough_goes_on() -> None:
    async def main() -> float:
        turns = Turns()
        turn = await turns.take(2, 1.0)

        async def urgent() -> None:
            for _ in range(40):
                await served(turns, 1, 0.1)

        began = loop().time()
        other = asyncio.ensure_future(urgent())
        await busy(turn, 0.02, 10)
        turn.give_back()
        waited = loop().time() - began
        await other
        return waited

    assert run(main()) < 1.5
