"""Sends latency-sensitive (LS) and best-effort (BE) requests, notes when each token came.

LS is an open loop: arrivals follow a Poisson process whether or not earlier requests were answered,
as people do. BE is a closed loop: each client sends its next request when the last one is done, as
batch jobs do. Times are seconds of ``time.monotonic``.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import openai

from benchmarks.server import SERVED_NAME

LS, BE = "LS", "BE"
PRIORITY = {LS: 0, BE: 10}

# Ids of plain bytes (see benchmarks.tokenizer).
PROMPT_IDS = 256
# A client whose request failed at once would otherwise spin.
PAUSE_AFTER_FAILURE = 0.5


@dataclass(frozen=True)
class Load:
    """The mix. Lengths in tokens, rates in requests a second; a zero turns that class off."""

    ls_rate: float = 0.5
    ls_prompt: int = 64
    ls_output: int = 16
    be_clients: int = 4
    be_prompt: int = 2000
    be_output: int = 64
    seed: int = 0


@dataclass
class Record:
    """What became of one request. ``tokens`` holds the arrival time of each output token."""

    kind: str
    prompt_tokens: int
    wanted_tokens: int
    sent: float
    late: float = 0.0
    tokens: list[float] = field(default_factory=list)
    end: float | None = None
    outcome: str = "in flight"
    error: str | None = None


@dataclass
class Run:
    """All requests of a run, and the window (start, end) that counts."""

    records: list[Record]
    window: tuple[float, float]


class Client:
    """One run's requests against one server."""

    def __init__(self, url: str, load: Load, priorities: bool) -> None:
        self.api = openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=900.0)
        self.load = load
        self.priorities = priorities
        self.records: list[Record] = []

    async def send(self, kind: str, number: int, late: float = 0.0) -> Record:
        """Send one request and stay until it is answered, fails or is cancelled."""
        load = self.load
        prompt, output = (
            (load.ls_prompt, load.ls_output) if kind == LS else (load.be_prompt, load.be_output)
        )
        # Seeded by class and number: the same for every system, and no two share a prefix.
        draw = random.Random(f"{load.seed} {kind} {number}")
        ids = [draw.randrange(PROMPT_IDS) for _ in range(prompt)]
        record = Record(kind, prompt, output, time.monotonic(), late)
        self.records.append(record)
        extra: dict[str, object] = {"ignore_eos": True, "min_tokens": output}
        if self.priorities:
            extra["priority"] = PRIORITY[kind]
        try:
            stream = await self.api.completions.create(
                model=SERVED_NAME,
                prompt=ids,
                max_tokens=output,
                temperature=0.0,
                stream=True,
                # A token may have no text of its own (half a UTF-8 character), so count by usage.
                stream_options={"include_usage": True, "continuous_usage_stats": True},
                extra_body=extra,
            )
            async for chunk in stream:
                now = time.monotonic()
                if chunk.usage is not None:
                    new = chunk.usage.completion_tokens - len(record.tokens)
                    record.tokens.extend([now] * new)
            complete = len(record.tokens) == output
            record.outcome = "ok" if complete else "failed"
            if not complete:
                record.error = f"{len(record.tokens)} of {output} tokens came"
        except asyncio.CancelledError:
            record.outcome = "cut off at the end"
            raise
        except (openai.OpenAIError, OSError, ValueError) as error:
            record.outcome, record.error = "failed", f"{type(error).__name__}: {error}"
        record.end = time.monotonic()
        return record

    async def best_effort(self, client: int) -> None:
        """One BE client, for ever."""
        turn = 0
        while True:
            record = await self.send(BE, client + turn * self.load.be_clients)
            turn += 1
            if record.outcome != "ok":
                await asyncio.sleep(PAUSE_AFTER_FAILURE)

    async def latency_sensitive(self, began: float, seconds: float) -> None:
        """LS arrivals for ``seconds``; returns when all of them are answered."""
        draw = random.Random(f"{self.load.seed} arrivals")
        due, number = began, 0
        async with asyncio.TaskGroup() as group:
            while (due := due + draw.expovariate(self.load.ls_rate)) < began + seconds:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                group.create_task(self.send(LS, number, late=time.monotonic() - due))
                number += 1


async def _run(
    client: Client, warm_up: float, seconds: float, drain: float, tick: Callable[[Run], None]
) -> Run:
    load, began = client.load, time.monotonic()
    run = Run(client.records, (began + warm_up, began + warm_up + seconds))
    best_effort = [asyncio.create_task(client.best_effort(i)) for i in range(load.be_clients)]
    urgent = (
        [asyncio.create_task(client.latency_sensitive(began, warm_up + seconds))]
        if load.ls_rate
        else []
    )
    try:
        # BE goes on until the last LS request is answered: the late ones shall have it no easier.
        while time.monotonic() < run.window[1] or not all(task.done() for task in urgent):
            if time.monotonic() > run.window[1] + drain:
                break
            tick(run)
            await asyncio.sleep(0.1)
    finally:
        for task in (*urgent, *best_effort):
            task.cancel()
        await asyncio.gather(*urgent, *best_effort, return_exceptions=True)
        with contextlib.suppress(Exception):
            await client.api.close()
    return run


def run_load(
    url: str,
    load: Load,
    *,
    priorities: bool,
    warm_up: float,
    seconds: float,
    drain: float = 60.0,
    tick: Callable[[Run], None] = lambda run: None,
) -> Run:
    """Apply the load for ``warm_up`` and then ``seconds``; wait up to ``drain`` for LS answers.

    ``priorities``: whether the server takes vLLM's ``priority`` field (fcfs servers refuse it).
    ``tick`` is called about ten times a second.
    """
    client = Client(url, load, priorities)
    return asyncio.run(_run(client, warm_up, seconds, drain, tick))


def run_batch(url: str, load: Load, first: int, *, priorities: bool) -> float:
    """Send ``be_clients`` BE requests at once, numbered from ``first``; seconds until all end."""

    async def batch() -> float:
        client = Client(url, load, priorities)
        began = time.monotonic()
        done = await asyncio.gather(*(client.send(BE, first + i) for i in range(load.be_clients)))
        took = time.monotonic() - began
        await client.api.close()
        for record in done:
            if record.outcome != "ok":
                raise RuntimeError(f"a request failed: {record.error}")
        return took

    return asyncio.run(batch())
