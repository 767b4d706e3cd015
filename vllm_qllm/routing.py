# SPDX-License-Identifier: Apache-2.0
"""Which replica gets a request: one rule, for the simulator's fleets and for those on Ray."""

from __future__ import annotations

from collections.abc import Sequence


def work_ahead(counts: Sequence[int], level: int) -> tuple[int, int]:
    """What a request of class ``level`` finds at a replica; the smallest gets it.

    That is the number of requests at least as urgent as it is, then the number of all. What is
    less urgent gives way under this package's policies, so it decides between equals only. For
    the least urgent class both numbers are that of all requests.

    Args:
        counts: requests at the replica by class, most urgent first.
        level: index of the class, 0 is the most urgent.
    """
    return sum(counts[: level + 1]), sum(counts)
