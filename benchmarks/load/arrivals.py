# SPDX-License-Identifier: Apache-2.0
"""Arrival processes: when the requests of an open loop are due, whoever was answered before."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, repeat
from typing import Protocol


class Arrivals(Protocol):
    """Draws the gaps between arrivals."""

    @property
    def rate(self) -> float:
        """Mean number of arrivals a second."""

    def gaps(self, draw: random.Random) -> Iterator[float]:
        """Seconds to the first arrival, from it to the second, and so on for ever."""


def positive(name: str, value: float) -> None:
    """Refuse what is not above zero."""
    if not value > 0:
        raise ValueError(f"{name} is {value!r}; it must be above 0")


@dataclass(frozen=True)
class Poisson:
    """Independent arrivals, as of many people who know nothing of each other."""

    rate: float

    def __post_init__(self) -> None:
        positive("rate", self.rate)

    def gaps(self, draw: random.Random) -> Iterator[float]:
        return iter(lambda: draw.expovariate(self.rate), None)


@dataclass(frozen=True)
class Gamma:
    """Gaps of a gamma distribution with coefficient of variation ``cv``.

    1 is Poisson; above that arrivals come in bursts; below, more evenly.
    """

    rate: float
    cv: float

    def __post_init__(self) -> None:
        positive("rate", self.rate)
        positive("cv", self.cv)

    def gaps(self, draw: random.Random) -> Iterator[float]:
        shape = self.cv**-2
        return iter(lambda: draw.gammavariate(shape, 1.0 / (shape * self.rate)), None)


@dataclass(frozen=True)
class Bursts:
    """``size`` requests at once, ``every`` so many seconds; the first half of that after the start.

    Nothing is drawn: where one burst more or less in the window would decide.
    """

    size: int
    every: float

    def __post_init__(self) -> None:
        positive("size", self.size)
        positive("every", self.every)

    @property
    def rate(self) -> float:
        return self.size / self.every

    def gaps(self, draw: random.Random) -> Iterator[float]:
        yield self.every / 2
        while True:
            yield from repeat(0.0, self.size - 1)
            yield self.every


def times(arrivals: Arrivals, draw: random.Random) -> Iterator[float]:
    """When requests are due, in seconds, for ever."""
    return accumulate(arrivals.gaps(draw))
