# SPDX-License-Identifier: Apache-2.0
"""What arrives at a simulated fleet: requests of traces and of random processes, and clients."""

from __future__ import annotations

import dataclasses
import heapq
import random
from collections.abc import Iterable, Iterator

from vllm_qllm.capacity.errors import check

# Time of arrival in seconds, level, prompt tokens, output tokens.
Arrival = tuple[float, int, int, int]


@dataclasses.dataclass(frozen=True)
class Clients:
    """A closed loop: each client sends its next request when the last one is answered.

    Attributes:
        level: class of the requests.
        number: how many clients.
        lengths: prompt and output tokens of the requests; client ``i`` sends number ``i``, then
            ``i + number`` and so on, and after the last length the first one follows.
        pause: seconds from an answer to the next request.
    """

    level: int
    number: int
    lengths: tuple[tuple[int, int], ...]
    pause: float = 0.0

    def __post_init__(self) -> None:
        check(self.number >= 1, "clients: number", self.number, "an integer of at least 1")
        check(self.pause >= 0, "clients: pause", self.pause, "seconds, 0 or more")
        check(bool(self.lengths), "clients: lengths", self.lengths, "at least one")
        for prompt, output in self.lengths:
            check(
                prompt >= 1 and output >= 1,
                "clients: prompt, output",
                (prompt, output),
                "tokens, at least 1",
            )


@dataclasses.dataclass(frozen=True)
class Workload:
    """Everything that arrives.

    Attributes:
        arrivals: open loop, in order of time.
        clients: closed loops.
        seconds: closed loops send nothing after this.
    """

    arrivals: tuple[Arrival, ...] = ()
    clients: tuple[Clients, ...] = ()
    seconds: float = 0.0

    def __len__(self) -> int:
        return len(self.arrivals)


def merged(streams: Iterable[Iterable[Arrival]]) -> tuple[Arrival, ...]:
    """Several streams, each in order of time, as one."""
    return tuple(heapq.merge(*streams))


def poisson(
    level: int, rate: float, prompt: int, output: int, seconds: float, seed: str
) -> Iterator[Arrival]:
    """Requests at ``rate`` a second for ``seconds``, all of one length."""
    check(rate > 0, "poisson: rate", rate, "requests a second, above 0")
    check(seconds > 0, "seconds", seconds, "above 0")
    for name, value in (("prompt", prompt), ("output", output)):
        check(value >= 1, f"poisson: {name}", value, "tokens, at least 1")
    draw = random.Random(seed)
    due = draw.expovariate(rate)
    while due < seconds:
        yield due, level, prompt, output
        due += draw.expovariate(rate)


def scaled(arrivals: Iterable[Arrival], rate: float, lengths: float, seed: str) -> list[Arrival]:
    """The same traffic at ``rate`` times its requests a second, with lengths times ``lengths``.

    Requests are repeated, or left out, at random; repetitions are moved by up to half a minute, so
    that the traffic keeps its shape over the day and the trace its length.
    """
    check(0 < rate <= 1e5, "rate", rate, "a factor above 0, at most 100000")
    check(0 < lengths <= 1e3, "lengths", lengths, "a factor above 0, at most 1000")
    if rate == 1.0 and lengths == 1.0:
        return list(arrivals)
    given = list(arrivals)
    last = given[-1][0] if given else 0.0
    draw = random.Random(seed)
    result = []
    for at, level, prompt, output in given:
        sizes = (max(1, round(prompt * lengths)), max(1, round(output * lengths)))
        copies = int(rate) + (draw.random() < rate - int(rate))
        for copy in range(copies):
            moved = at if copy == 0 else min(max(at + draw.uniform(-30.0, 30.0), 0.0), last)
            result.append((moved, level, *sizes))
    result.sort()
    return result
