# SPDX-License-Identifier: Apache-2.0
"""How many requests of each class every replica has: what it said, and what it was sent since."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

# A request that was sent so shortly before a report may not be in it. Seconds; clocks of machines
# differ, too. It may count twice until the next report.
MARGIN = 0.25


@dataclass
class _Replica:
    """What is known of one.

    Attributes:
        at: time of its last report. Seconds.
        counts: requests by class, as it said; None while it does not answer.
        sent: time and class of requests since then, by their ids.
    """

    at: float
    counts: Sequence[int] | None
    sent: dict[str, tuple[float, int]] = field(default_factory=dict)


class Ledger:
    """Reports come once in a while; between two of them a burst would all go to one replica.

    Args:
        classes: number of them.
    """

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self._replicas: dict[str, _Replica] = {}

    def report(self, replica: str, at: float, counts: Sequence[int] | None) -> None:
        """What a replica said of itself at a time; the same report may come again.

        Args:
            replica: its id.
            at: seconds since 1970.
            counts: requests that run, wait or are suspended, by class; None: no answer.
        """
        known = self._replicas.setdefault(replica, _Replica(at, counts))
        if at == known.at:
            return
        # A clock that was set back does not tell what was sent since.
        since = at - MARGIN if at > known.at else math.inf
        known.at, known.counts = at, counts
        known.sent = {k: v for k, v in known.sent.items() if v[0] > since}

    def keep(self, replicas: Sequence[str]) -> None:
        """Forget all others."""
        for gone in self._replicas.keys() - set(replicas):
            del self._replicas[gone]

    def sent(self, replica: str, request: str, level: int, now: float) -> None:
        """A request goes to a replica, and to no other."""
        self.ended(request)
        known = self._replicas.setdefault(replica, _Replica(0.0, [0] * self._classes))
        known.sent[request] = now, level

    def ended(self, request: str) -> None:
        """A request has been answered, or given up."""
        for known in self._replicas.values():
            known.sent.pop(request, None)

    def answers(self, replica: str) -> bool:
        """Whether its last report was one; one that has not reported yet is believed to."""
        return replica not in self._replicas or self._replicas[replica].counts is not None

    def counts(self, replica: str) -> list[int]:
        """Requests that it has, by class."""
        known = self._replicas.get(replica)
        if known is None:
            return [0] * self._classes
        counts = list(known.counts or [0] * self._classes)
        for _, level in known.sent.values():
            counts[level] += 1
        return counts
