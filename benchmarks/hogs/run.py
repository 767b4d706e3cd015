# SPDX-License-Identifier: Apache-2.0
"""One hog on one server: urgent requests alone, then beside it."""

import asyncio
import contextlib
import io
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from benchmarks.hogs.hog import HOGS, SMALL, Hog
from benchmarks.hogs.urgent import Urgent
from benchmarks.measurement.progress import Progress
from benchmarks.systems.server import Server, serve

WARM_UP, ALONE_SECONDS, BESIDE_SECONDS, PATIENCE_SECONDS = 5, 4.0, 8.0, 30.0
# A hog that was answered is sent again after so long.
PAUSE_SECONDS = 1.0
# For what goes on in the server when nobody waits for the hog any more.
SETTLE_SECONDS = 20.0
READ_BYTES = 1 << 20


@dataclass
class Result:
    """What urgent requests met.

    Attributes:
        name: of the hog.
        alone: seconds of urgent requests of the same kind, on the idle server.
        beside: their seconds beside the hog.
        answers: HTTP status, or what else became of a hog, and how often.
        settled: whether the server was idle again soon after it.
    """

    name: str
    alone: list[float]
    beside: list[float]
    answers: Counter[str]
    settled: bool

    @property
    def ratio(self) -> float:
        """The worst one beside the hog over the worst one alone."""
        return max(self.beside) / max(self.alone)


def results(
    names: Sequence[str], model: Path, arguments: Sequence[str], log: Path
) -> Iterator[Result]:
    """One of each hog, as it is measured.

    Args:
        names: of HOGS.
        model: folder of the model.
        arguments: of ``vllm serve``.
        log: of the servers; a server that stays busy with a hog is ended, and the next one started.

    Raises:
        ServerDied: a hog ended the server, or it did not start.
    """
    left = list(names)
    progress = Progress()
    while left:
        progress.stage(left[0])
        with serve(model, arguments, log, progress=progress) as server:
            settled = True
            while left and settled:
                progress.stage(left[0])
                result = asyncio.run(measure(server, left.pop(0)))
                settled = result.settled
                yield result


async def measure(server: Server, name: str) -> Result:
    """Urgent requests alone, beside the hog, and alone again until they are as fast as before."""
    hog = HOGS[name]
    hog.prepare()
    url = server.url.removesuffix("/v1") + hog.path
    limits = aiohttp.TCPConnector(limit=0, keepalive_timeout=2.0)
    timeout = aiohttp.ClientTimeout(total=600.0)
    async with aiohttp.ClientSession(
        connector=limits, timeout=timeout, read_bufsize=READ_BYTES
    ) as session:
        urgent = Urgent(server, session)
        # The first request of a route may import half a library.
        async with session.post(url, json=SMALL[hog.path]) as answer:
            await answer.read()
        for _ in range(WARM_UP):
            await urgent.one(hog.beside)
        alone = await urgent.stream(hog.beside, ALONE_SECONDS, PATIENCE_SECONDS)
        answers: Counter[str] = Counter()
        numbers = itertools.count()
        senders = [
            asyncio.create_task(_send(session, url, hog, numbers, answers))
            for _ in range(hog.copies)
        ]
        beside = await urgent.stream(hog.beside, BESIDE_SECONDS, PATIENCE_SECONDS)
        for sender in senders:
            sender.cancel()
        await asyncio.gather(*senders, return_exceptions=True)
        settled = await _settles(urgent, hog.beside, max(alone))
        return Result(name, alone, beside, answers, settled)


async def _send(
    session: aiohttp.ClientSession,
    url: str,
    hog: Hog,
    numbers: Iterator[int],
    answers: Counter[str],
) -> None:
    """Send it, again and again; what is on its way when this is cancelled was not answered."""
    headers = {"Content-Type": "application/json"}
    while True:
        data = hog.bytes_of(next(numbers))
        outcome = "unanswered"
        try:
            # As a file: aiohttp writes bytes at once, and its loop, which times others, waits.
            async with session.post(url, data=io.BytesIO(data), headers=headers) as answer:
                await answer.read()
                outcome = str(answer.status)
        except aiohttp.ClientError as error:
            outcome = type(error).__name__
        finally:
            answers[outcome] += 1
        await asyncio.sleep(PAUSE_SECONDS)


async def _settles(urgent: Urgent, kind: str, usual: float) -> bool:
    """Whether urgent requests are soon as fast again as they were, a second long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SETTLE_SECONDS):
            while max(await urgent.stream(kind, 1.0, SETTLE_SECONDS)) > 2 * usual:
                pass
            return True
    return False
