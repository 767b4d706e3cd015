# SPDX-License-Identifier: Apache-2.0
"""Streams of requests: what a scenario is made of.

The same seed gives the same requests to every system: arrivals, lengths and prompts depend on seed,
class and number alone.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile

from benchmarks.load import traces
from benchmarks.load.arrivals import Arrivals, positive, times
from benchmarks.load.lengths import Lengths, whole
from benchmarks.load.traces import Traces


@dataclass(frozen=True)
class Job:
    """A request to be sent: class, number within the class, tokens, and when it is due (seconds).

    ``priority`` is not here: it depends on the system.
    """

    kind: str
    number: int
    due: float
    prompt: int
    output: int


@dataclass(frozen=True)
class OpenLoop:
    """Requests that come whether or not earlier ones were answered, as people's do.

    ``shares`` says which class an arrival belongs to, at random: ``(("LS", 0.2), ("BE", 0.8))``.
    """

    shares: tuple[tuple[str, float], ...]
    arrivals: Arrivals
    lengths: Lengths

    def __post_init__(self) -> None:
        for kind, share in self.shares:
            positive(f"share of {kind}", share)

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(kind for kind, _ in self.shares)

    def jobs(self, seed: int, seconds: float, files: Traces) -> Iterator[Job]:
        """All that are due within ``seconds``, in order."""
        draw = random.Random(f"{seed} arrivals {self.kinds}")
        numbers = dict.fromkeys(self.kinds, 0)
        weights = [share for _, share in self.shares]
        for due in takewhile(lambda t: t < seconds, times(self.arrivals, draw)):
            (kind,) = draw.choices(self.kinds, weights)
            number = numbers[kind]
            numbers[kind] += 1
            yield Job(kind, number, due, *self.lengths.one(lengths_of(seed, kind, number)))


@dataclass(frozen=True)
class Replay:
    """An open loop as in a trace file, scaled in time and length.

    It takes as many requests in a row as the rate asks for, from a place that the seed chooses, and
    stretches their time to the run: bursts stay bursts, and every run has the same mean rate. A
    trace that is too short for that is played once, whole.

    Attributes:
        kind: class of all requests.
        trace: name of the file, unless another is taken in its place.
        rate: mean number of requests a second.
        prompt_scale, output_scale: factors of the lengths, which then are rounded.
        longest_prompt, longest_output: what is longer is cut, so that the model can take it.
    """

    kind: str
    trace: str
    rate: float
    prompt_scale: float
    output_scale: float
    longest_prompt: int
    longest_output: int

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name not in ("kind", "trace"):
                positive(name, value)

    @property
    def kinds(self) -> tuple[str, ...]:
        return (self.kind,)

    def jobs(self, seed: int, seconds: float, files: Traces) -> Iterator[Job]:
        """All that are due within ``seconds``, in order. Raises BadTrace."""
        entries = traces.read(files.path(self.kind, self.trace))
        count = min(len(entries) - 1, max(1, round(self.rate * seconds)))
        places = range(len(entries) - count)
        first = random.Random(f"{seed} place {self.kind} {self.trace}").choice(places)
        began, span = entries[first].at, entries[first + count].at - entries[first].at
        stretch = count / self.rate / span if span else 0.0
        for number, entry in enumerate(entries[first : first + count + 1]):
            due = (entry.at - began) * stretch
            if due >= seconds:
                return
            prompt = whole(entry.prompt * self.prompt_scale, self.longest_prompt)
            output = whole(entry.output * self.output_scale, self.longest_output)
            yield Job(self.kind, number, due, prompt, output)


@dataclass(frozen=True)
class ClosedLoop:
    """Clients that each send their next request ``pause`` seconds after the answer to the last."""

    kind: str
    clients: int
    lengths: Lengths
    pause: float = 0.0

    def __post_init__(self) -> None:
        positive("clients", self.clients)

    @property
    def kinds(self) -> tuple[str, ...]:
        return (self.kind,)

    def job(self, seed: int, number: int, due: float) -> Job:
        """The request with this number; client c of n sends c, c+n, c+2n, ..."""
        lengths = self.lengths.one(lengths_of(seed, self.kind, number))
        return Job(self.kind, number, due, *lengths)


Stream = OpenLoop | Replay | ClosedLoop


def open_loop(kind: str, arrivals: Arrivals, lengths: Lengths) -> OpenLoop:
    """An open loop of one class."""
    return OpenLoop(((kind, 1.0),), arrivals, lengths)


def lengths_of(seed: int, kind: str, number: int) -> random.Random:
    """What the lengths of a request are drawn from."""
    return random.Random(f"{seed} lengths {kind} {number}")


def prompt_of(seed: int, job: Job) -> list[int]:
    """The prompt's token ids, plain bytes (see benchmarks.tokenizer); no two share a prefix."""
    return list(random.Random(f"{seed} prompt {job.kind} {job.number}").randbytes(job.prompt))
