"""Arrival processes: when the requests of an open loop are due, whoever was answered before."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol


class Arrivals(Protocol):
    """Draws the gaps between arrivals."""

    @property
    def rate(self) -> float:
        """Mean number of arrivals a second."""

    def gap(self, draw: random.Random) -> float:
        """Seconds to the next arrival."""


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

    def gap(self, draw: random.Random) -> float:
        return draw.expovariate(self.rate)


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

    def gap(self, draw: random.Random) -> float:
        shape = self.cv**-2
        return draw.gammavariate(shape, 1.0 / (shape * self.rate))


def times(arrivals: Arrivals, draw: random.Random) -> Iterator[float]:
    """When requests are due, in seconds, for ever."""
    return accumulate(iter(lambda: arrivals.gap(draw), None))
