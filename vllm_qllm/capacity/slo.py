# SPDX-License-Identifier: Apache-2.0
"""What a class is promised, how often that is kept, and how many replicas that takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from vllm_qllm.capacity.errors import CapacityError, check
from vllm_qllm.capacity.meter import Meter

BOUNDS = ("ttft", "tpot", "e2e")


@dataclass(frozen=True)
class Slo:
    """Bounds in seconds that a request of class ``level`` keeps all of, or fails."""

    level: int
    ttft: float = math.inf
    tpot: float = math.inf
    e2e: float = math.inf

    def attained(self, meter: Meter) -> float:
        """The fraction of requests that kept it; refused ones did not. 1 of nothing."""
        kept = np.ones(len(meter.ttft[self.level]), dtype=bool)
        for name in BOUNDS:
            kept &= np.asarray(getattr(meter, name)[self.level]) <= getattr(self, name)
        total = len(kept) + meter.refused[self.level]
        return float(kept.sum()) / total if total else 1.0


def parse(text: str, classes: Sequence[str]) -> Slo:
    """``CLASS:ttft=SECONDS,tpot=SECONDS,e2e=SECONDS`` with one or more of the three.

    Raises:
        CapacityError: the class or a bound is not one.
    """
    name, _, rest = text.partition(":")
    check(name in classes, "slo: class", name, ", ".join(classes))
    bounds: dict[str, float] = {}
    for part in rest.split(","):
        key, _, value = part.partition("=")
        check(key in BOUNDS, f"slo {text!r}: bound", key, ", ".join(BOUNDS))
        try:
            bounds[key] = float(value)
        except ValueError:
            bounds[key] = -1.0
        check(bounds[key] > 0, f"slo {text!r}: {key}", value, "seconds above 0")
    return Slo(list(classes).index(name), **bounds)


def fewest(
    enough: Callable[[int], bool],
    most: int,
) -> int:
    """The smallest number of replicas from 1 to ``most`` for which ``enough`` is true.

    More replicas are taken to be at least as good: doubles until it is enough, then halves the gap.

    Raises:
        CapacityError: ``most`` are not enough.
    """
    low, high = 0, 1
    while not enough(high):
        if high >= most:
            raise CapacityError(
                f"capacity: {most} replicas do not keep the SLOs; allowed: looser SLOs, less "
                "load, or a larger --most"
            )
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        if enough(middle):
            high = middle
        else:
            low = middle
    return high
