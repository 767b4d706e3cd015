# SPDX-License-Identifier: Apache-2.0
"""What the numbers were in the last minutes, so that a page that was just opened can show them.

Counters say how much there was since the start. How much there was in the last minute takes a
second look at them a minute earlier: a thread of each API server looks every two seconds.
"""

from __future__ import annotations

import contextlib
import threading
import time
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from vllm_qllm.metrics.layout import Layout
from vllm_qllm.metrics.stores import Stores

INTERVAL_SECONDS = 2.0
MAX_SECONDS = 300.0


@dataclass(frozen=True)
class Sample:
    """All numbers at one time, ``time.monotonic()`` seconds."""

    time: float
    slots: Sequence[float]


@dataclass(frozen=True)
class Window:
    """A stretch of time up to now.

    Attributes:
        layout: of the numbers.
        first: the numbers at its beginning; all 0 at the start of the server.
        last: the numbers now.
        between: samples of the time between, oldest first.
    """

    layout: Layout
    first: Sample
    last: Sample
    between: tuple[Sample, ...] = ()

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.last.time - self.first.time

    def now(self, name: str, *values: str) -> float:
        """A gauge, by its labels."""
        return self.last.slots[self.layout.offset(name, *values)]

    def grown(self, name: str, *values: str) -> float:
        """By how much a counter has grown."""
        slot = self.layout.offset(name, *values)
        return self.last.slots[slot] - self.first.slots[slot]

    def counts(self, name: str, width: int, *values: str) -> list[float]:
        """How many values each bucket of a histogram got, and their sum: ``width`` numbers."""
        start = self.layout.offset(name, *values)
        pairs = zip(
            self.last.slots[start : start + width],
            self.first.slots[start : start + width],
            strict=True,
        )
        return [last - first for last, first in pairs]

    def rates(self, points: int, name: str, *values: str) -> list[float]:
        """Growth of a counter a second, over at most ``points`` parts of the window."""
        slot = self.layout.offset(name, *values)
        samples = [self.first, *self.between, self.last]
        stride = max(1, -(-(len(samples) - 1) // points))
        # From the end, so that each part has all of its samples; the earliest ones may be left out.
        ends = samples[::-1][::stride][::-1]
        return [
            (b.slots[slot] - a.slots[slot]) / (b.time - a.time)
            for a, b in pairwise(ends)
            if b.time > a.time
        ]


class History:
    """Samples of the last minutes. Any thread may call it.

    Args:
        stores: which it reads.
        clock: seconds.
    """

    def __init__(self, stores: Stores, clock: Callable[[], float] = time.monotonic) -> None:
        self._stores, self._clock = stores, clock
        self._lock = threading.Lock()
        self._samples: deque[Sample] = deque()
        self._start = Sample(clock(), array("d", bytes(8 * stores.layout.size)))

    def keep(self) -> threading.Thread:
        """Sample from now on, in a thread that ends with the process."""
        thread = threading.Thread(target=self._keep, name="qllm-status", daemon=True)
        thread.start()
        return thread

    def _keep(self) -> None:
        while True:
            # A process that has no file descriptors left may have some again in two seconds.
            with contextlib.suppress(OSError):
                self.sample()
            time.sleep(INTERVAL_SECONDS)

    def sample(self) -> Sample | None:
        """Note the numbers as they are now; None while no engine has begun to record."""
        found = self._stores.read()
        if found is None:
            return None
        sample = Sample(self._clock(), array("d", found))
        with self._lock:
            self._samples.append(sample)
            # The oldest one that is kept is older than the longest window: that begins with it.
            while len(self._samples) > 1 and self._samples[1].time <= sample.time - MAX_SECONDS:
                self._samples.popleft()
        return sample

    def window(self, seconds: float) -> Window | None:
        """The last ``seconds``, or a little more; 0 for all since the start.

        Returns:
            None while no engine has begun to record.
        """
        found = self._stores.read()
        if found is None:
            return None
        last = Sample(self._clock(), found)
        with self._lock:
            samples = tuple(s for s in self._samples if s.time < last.time)
        earlier = [i for i, s in enumerate(samples) if s.time <= last.time - seconds]
        if seconds and earlier:
            return Window(
                self._stores.layout, samples[earlier[-1]], last, samples[earlier[-1] + 1 :]
            )
        # Younger than that: since the start, when all counters were 0.
        return Window(self._stores.layout, self._start, last, samples)
