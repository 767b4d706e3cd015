"""One cell: apply its load to a server that runs, and write down what came of it."""

import asyncio
import dataclasses
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import aiohttp

from benchmarks import counters, equality
from benchmarks.load.client import Client, Exchange
from benchmarks.load.drive import drive
from benchmarks.load.traces import BadTrace
from benchmarks.matrix import Cell, Setup
from benchmarks.record import KINDS, OK, Record
from benchmarks.server import Server


def measure(
    cell: Cell,
    setup: Setup,
    server: Server,
    facts: dict[str, Any],
    say: Callable[[str], None] = lambda text: None,
) -> Record:
    """Its record; a failed one where the load could not be made."""
    try:
        return asyncio.run(_measure(cell, setup, server, facts, say))
    except BadTrace as error:
        return cell.blank(setup, facts, status="failed", cause=str(error))


async def _measure(
    cell: Cell, setup: Setup, server: Server, facts: dict[str, Any], say: Callable[[str], None]
) -> Record:
    times = cell.times(setup)
    kinds = [kind for kind in KINDS if kind in cell.system.kinds]

    def tick(exchanges: Sequence[Exchange]) -> None:
        done = [sum(e.outcome == OK for e in exchanges if e.job.kind == k) for k in kinds]
        counts = ", ".join(f"{count} {kind}" for count, kind in zip(done, kinds, strict=True))
        say(f"answered {counts}")

    async with Client(server, setup.seed, cell.system.priorities) as client:

        async def probe() -> str | None:
            try:
                return await client.get("/metrics")
            except (TimeoutError, aiohttp.ClientError, OSError):
                return None  # a server of another kind, or one that died, which requests will show

        began_unix = time.time()
        driven = await drive(client, cell.variant.streams, kinds, times, setup.files, probe, tick)
        since = driven.began + times.warm_up
        exchanges = list(driven.exchanges)
        say("comparing tokens")
        equal = await equality.compare(client, exchanges, setup.sample, since)
    blank = cell.blank(setup, facts)
    return dataclasses.replace(
        blank,
        began_at=datetime.fromtimestamp(began_unix).astimezone().isoformat(timespec="seconds"),
        began_unix=began_unix,
        began_monotonic=driven.began,
        window=(times.warm_up, times.warm_up + times.seconds),
        ended=driven.ended - driven.began,
        start_seconds=server.start_seconds,
        command=server.command_line,
        before=counters.parse(driven.before or ""),
        after=counters.parse(driven.after or ""),
        equality=equal,
        requests=[e.request(driven.began) for e in exchanges],
    )
