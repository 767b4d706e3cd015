# SPDX-License-Identifier: Apache-2.0
"""One cell: apply its load to a server that runs, and write down what came of it."""

import asyncio
import dataclasses
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from benchmarks.load.client import Client, Exchange
from benchmarks.load.drive import drive
from benchmarks.measurement import counters, equality, responses
from benchmarks.measurement.matrix import Cell, Setup
from benchmarks.record.record import KINDS, OK, Record, path_of
from benchmarks.systems.server import Server

TIMELINE_SECONDS = 5.0
# More than this the server does not answer.
LONGEST_TIMELINE = 3600.0


async def page(client: Client, path: str) -> str | None:
    """A page of the server; None where it has none, or died, which requests will show."""
    try:
        return await client.get(path)
    except (TimeoutError, aiohttp.ClientError, OSError):
        return None


def keep(path: Path, text: str | None) -> None:
    """Write a timeline, where there is one."""
    if text is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def measure(
    cell: Cell,
    setup: Setup,
    server: Server,
    facts: dict[str, Any],
    say: Callable[[str], None] = lambda text: None,
) -> Record:
    """Its record. Raises BadTrace."""
    return asyncio.run(_measure(cell, setup, server, facts, say))


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

        async def probe(ending: bool) -> str | None:
            if ending and cell.system.ours and setup.timelines is not None:
                timeline = await page(client, f"{responses.PATH}?seconds={TIMELINE_SECONDS}")
                keep(setup.timelines / path_of(Path(), cell.blank(setup, facts)), timeline)
            return await page(client, "/metrics")

        began_unix = time.time()
        driven = await drive(client, cell.variant.streams, kinds, times, setup.files, probe, tick)
        since = driven.began + times.warm_up
        exchanges = list(driven.exchanges)
        exact = {}
        if cell.system.ours:
            past = min(time.monotonic() - since, LONGEST_TIMELINE)
            timeline = await page(client, f"{responses.PATH}?seconds={past}")
            if timeline is not None:
                document = msgspec.json.decode(timeline)
                exact = responses.response_times(document, times.seconds)
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
        responses=exact,
        equality=equal,
        requests=[e.request(driven.began) for e in exchanges],
    )
