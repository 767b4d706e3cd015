# SPDX-License-Identifier: Apache-2.0
"""Applies streams of requests to a server for a while."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass

from benchmarks.load.client import Client, Exchange
from benchmarks.load.streams import ClosedLoop, Job, Stream
from benchmarks.load.traces import Traces
from benchmarks.record.record import OK

# A client whose request failed at once would otherwise spin.
PAUSE_AFTER_FAILURE = 0.5
TICK_SECONDS = 0.2


@dataclass(frozen=True)
class Times:
    """Durations in seconds: load that does not count, load that counts, and patience after it."""

    warm_up: float
    seconds: float
    drain: float


@dataclass
class Driven:
    """What a load left: all exchanges, when it began and ended (``time.monotonic``), and what
    ``probe`` gave at both ends of the window."""

    exchanges: list[Exchange]
    began: float
    ended: float = 0.0
    before: str | None = None
    after: str | None = None


async def open_jobs(client: Client, jobs: Sequence[Job], began: float) -> None:
    """Send each job when it is due; return when all are answered."""
    async with asyncio.TaskGroup() as group:
        for job in jobs:
            due = began + job.due
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            group.create_task(client.send(job, due))


async def closed_client(client: Client, stream: ClosedLoop, first: int, began: float) -> None:
    """One client of a closed loop, for ever."""
    number = first
    while True:
        due = time.monotonic()
        done = await client.send(stream.job(client.seed, number, due - began), due)
        number += stream.clients
        await asyncio.sleep(stream.pause if done.outcome == OK else PAUSE_AFTER_FAILURE)


async def drive(
    client: Client,
    streams: Sequence[Stream],
    kinds: Collection[str],
    times: Times,
    files: Traces,
    probe: Callable[[bool], Awaitable[str | None]],
    tick: Callable[[Sequence[Exchange]], None] = lambda exchanges: None,
) -> Driven:
    """Apply the streams' requests of the classes in ``kinds``.

    After the window no open loop sends any more; its requests still get ``drain`` seconds, and
    closed loops go on meanwhile: the late ones shall have it no easier. Then what is in flight is
    cancelled and stays unanswered. ``probe`` is called at both ends of the window, with whether it
    is the second; ``tick`` a few times a second. Raises BadTrace.
    """
    total = times.warm_up + times.seconds
    open_: list[Job] = []
    for stream in streams:
        if not isinstance(stream, ClosedLoop):
            open_ += [j for j in stream.jobs(client.seed, total, files) if j.kind in kinds]
    open_.sort(key=lambda job: job.due)
    closed = [s for s in streams if isinstance(s, ClosedLoop) and s.kind in kinds]

    began = time.monotonic()
    driven = Driven(client.exchanges, began)
    arriving = asyncio.create_task(open_jobs(client, open_, began))
    looping = [
        asyncio.create_task(closed_client(client, stream, first, began))
        for stream in closed
        for first in range(stream.clients)
    ]

    async def probes() -> None:
        await asyncio.sleep(times.warm_up)
        driven.before = await probe(False)
        await asyncio.sleep(max(0.0, began + total - time.monotonic()))
        driven.after = await probe(True)

    probing = asyncio.create_task(probes())
    try:
        while time.monotonic() < began + total or not arriving.done() or not probing.done():
            if time.monotonic() > began + total + times.drain:
                break
            tick(client.exchanges)
            await asyncio.sleep(TICK_SECONDS)
    finally:
        driven.ended = time.monotonic()
        every = [arriving, probing, *looping]
        for task in every:
            task.cancel()
        results = await asyncio.gather(*every, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result
    return driven
