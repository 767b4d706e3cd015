# SPDX-License-Identifier: Apache-2.0
"""Which replica gets a request."""

from __future__ import annotations

import heapq
import itertools
from typing import Protocol

from vllm_qllm.capacity.errors import check
from vllm_qllm.routing import work_ahead


class Router(Protocol):
    """Told of every request that comes and goes."""

    def pick(self, level: int) -> int:
        """The replica for a request of class ``level``."""
        ...

    def came(self, replica: int, level: int) -> None:
        """The replica has got a request of class ``level``."""
        ...

    def went(self, replica: int, level: int) -> None:
        """A request of class ``level`` has ended there."""
        ...


class RoundRobin:
    """One replica after another, whatever they have to do."""

    def __init__(self, replicas: int, classes: int) -> None:
        self._replicas = replicas
        self._next = -1

    def pick(self, level: int) -> int:
        """The next one."""
        self._next = (self._next + 1) % self._replicas
        return self._next

    def came(self, replica: int, level: int) -> None:
        """Nothing to note."""

    def went(self, replica: int, level: int) -> None:
        """Nothing to note."""


class Counts:
    """Replicas by a count that moves by one: the least is found in constant time."""

    def __init__(self, replicas: int) -> None:
        self._of = [0] * replicas
        self._least = 0
        # Dictionaries as ordered sets: among equals the one that has been so for longest.
        self._groups: list[dict[int, None]] = [dict.fromkeys(range(replicas))]

    def least(self) -> int:
        """A replica with the smallest count."""
        return next(iter(self._groups[self._least]))

    def move(self, replica: int, by: int) -> None:
        """Add 1 or -1 to a replica's count."""
        count = self._of[replica]
        del self._groups[count][replica]
        count += by
        self._of[replica] = count
        if count == len(self._groups):
            self._groups.append({})
        self._groups[count][replica] = None
        if count < self._least:
            self._least = count
        while not self._groups[self._least]:
            self._least += 1


class LeastOutstanding:
    """The replica with the fewest requests of any class."""

    def __init__(self, replicas: int, classes: int) -> None:
        self._counts = Counts(replicas)

    def pick(self, level: int) -> int:
        """The one with the fewest."""
        return self._counts.least()

    def came(self, replica: int, level: int) -> None:
        """One more there."""
        self._counts.move(replica, 1)

    def went(self, replica: int, level: int) -> None:
        """One less there."""
        self._counts.move(replica, -1)


class ClassAware:
    """The replica with the least :func:`~vllm_qllm.routing.work_ahead`: as fleets on Ray."""

    def __init__(self, replicas: int, classes: int) -> None:
        self._of = [[0] * classes for _ in range(replicas)]
        # Heaps by class, in which only the latest entry of a replica counts.
        self._latest = list(range(replicas))
        self._stamps = itertools.count(replicas)
        self._heaps: list[list[tuple[int, int, int, int]]] = []
        for _ in range(classes):
            self._heaps.append([(0, 0, i, i) for i in range(replicas)])

    def pick(self, level: int) -> int:
        """The one with the fewest of levels up to ``level``."""
        heap = self._heaps[level]
        while heap[0][2] != self._latest[heap[0][3]]:
            heapq.heappop(heap)
        return heap[0][3]

    def came(self, replica: int, level: int) -> None:
        """One more there."""
        self._of[replica][level] += 1
        self._changed(replica)

    def went(self, replica: int, level: int) -> None:
        """One less there."""
        self._of[replica][level] -= 1
        self._changed(replica)

    def _changed(self, replica: int) -> None:
        stamp = self._latest[replica] = next(self._stamps)
        for level, heap in enumerate(self._heaps):
            heapq.heappush(heap, (*work_ahead(self._of[replica], level), stamp, replica))
            if len(heap) > 8 * len(self._of) + 64:  # mostly entries that no longer count
                heap[:] = [entry for entry in heap if entry[2] == self._latest[entry[3]]]
                heapq.heapify(heap)


ROUTERS: dict[str, type[RoundRobin] | type[LeastOutstanding] | type[ClassAware]] = {
    "round_robin": RoundRobin,
    "least_outstanding": LeastOutstanding,
    "class_aware": ClassAware,
}


def router(name: str, replicas: int, classes: int) -> Router:
    """The named router.

    Raises:
        CapacityError: there is none of that name.
    """
    check(name in ROUTERS, "routing", name, ", ".join(ROUTERS))
    return ROUTERS[name](replicas, classes)
