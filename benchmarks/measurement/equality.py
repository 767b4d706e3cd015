# SPDX-License-Identifier: Apache-2.0
"""Are the tokens those of the same request alone? A sample is sent again, one by one, to the server
when it is idle.

A batch of other requests can change a token in bf16 without any preemption, because sums are
rounded in another order. So the figure means something beside that of stock systems only.
"""

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import aiohttp

from benchmarks.load.client import Client, Exchange
from benchmarks.measurement import counters
from benchmarks.record.record import BE, KINDS, LS, OK, Equality

# Answers are compared this far.
TOKENS = 32
IDLE_SECONDS = 30.0


@dataclass(frozen=True)
class Sample:
    """How many requests of each class, and after how many seconds no further one is begun."""

    requests: tuple[tuple[str, int], ...] = ((LS, 4), (BE, 2))
    patience: float = 15.0


async def until_idle(client: Client) -> str | None:
    """Wait until the engine has finished everything; why not, where that did not happen."""
    deadline = time.monotonic() + IDLE_SECONDS
    while time.monotonic() < deadline:
        try:
            busy = counters.running(counters.parse(await client.get("/metrics")))
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            return f"/metrics does not answer: {type(error).__name__}: {error}"
        if not busy:
            return None
        await asyncio.sleep(0.2)
    return f"the server was not idle after {IDLE_SECONDS:.0f} s"


async def compare(
    client: Client, exchanges: Sequence[Exchange], sample: Sample, since: float
) -> dict[str, Equality]:
    """Compare answered requests that were due ``since`` then; by class."""
    cause = await until_idle(client)
    deadline = time.monotonic() + sample.patience
    found: dict[str, Equality] = {}
    for kind, count in sample.requests:
        done = [
            e
            for e in exchanges
            if e.job.kind == kind and e.outcome == OK and e.scheduled >= since and e.token_ids
        ]
        if cause is None and done:
            chosen = random.Random(client.seed).sample(done, min(count, len(done)))
            found[kind] = await _of_class(client, chosen, deadline)
        elif any(e.job.kind == kind for e in exchanges):
            found[kind] = Equality(cause=cause or "no request was answered with token ids")
    return found


async def _of_class(client: Client, chosen: Sequence[Exchange], deadline: float) -> Equality:
    numbers: list[int] = []
    different: list[int] = []
    cause = None
    for before in chosen:
        if time.monotonic() > deadline:
            cause = None if numbers else "there was no time left"
            break
        output = min(TOKENS, before.job.output)
        alone = await client.send(replace(before.job, output=output), time.monotonic())
        if alone.outcome != OK:
            cause = alone.error
            break
        numbers.append(before.job.number)
        at = first_difference(before.token_ids[:output], alone.token_ids)
        if at is not None:
            different.append(at)
    return Equality(numbers, len(numbers) - len(different), different, cause)


def first_difference(one: Sequence[int], other: Sequence[int]) -> int | None:
    """The first position at which two answers differ, their ends included; None when they agree."""
    for position, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return position
    return None if len(one) == len(other) else min(len(one), len(other))


def total(found: Sequence[Mapping[str, Equality]]) -> dict[str, tuple[int, int]]:
    """(equal, compared) by class over several runs."""
    return {
        kind: (
            sum(each[kind].equal for each in found if kind in each),
            sum(len(each[kind].numbers) for each in found if kind in each),
        )
        for kind in KINDS
    }
