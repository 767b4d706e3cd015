# SPDX-License-Identifier: Apache-2.0
"""Counts what tenants use, and says when that is enough; together for all API servers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vllm_qllm.access.refusal import STATUS, Refusal
from vllm_qllm.access.roster import NONE, Roster
from vllm_qllm.access.table import NUMBERS, Table
from vllm_qllm.access.tenant import Limits

# Numbers of a row: being answered; level of the leaky bucket and when that was; mean seconds of
# an answer; how many were admitted; and from there on how many were refused, by reason.
ACTIVE, LEVEL, AT, MEAN, ADMITTED, REFUSED = range(6)
REASONS = tuple(STATUS)
MAX_RETRY_AFTER = 60
# Weight of the latest answer in the mean.
LATEST = 0.1


@dataclass(frozen=True)
class Claim:
    """What one request holds until it is answered.

    Attributes:
        tenant: whose.
        cls: name of the class.
        weight: number of sequences.
        since: when it was admitted, on the limiter's clock.
    """

    tenant: str
    cls: str
    weight: int
    since: float


class Limiter:
    """Admits requests within limits. All or nothing: a refused request uses up nothing.

    Args:
        table: where the numbers are.
        classes: names, most urgent first.
        clock: seconds, the same in all processes and never set back; steps of the time of day
            change no limit.
    """

    def __init__(
        self, table: Table, classes: Sequence[str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._table = table
        self._classes = tuple(classes)
        self._clock = clock

    def reserve(self, roster: Roster) -> None:
        """Make room for all that a roster names.

        Raises:
            TableFull: there have been too many names since the server has started.
        """
        with self._table.locked():
            for tenant in (*roster.tenants, NONE):
                for cls in (*self._classes, NONE):
                    self._table.row("used", tenant, cls)

    def admit(
        self, tenant: str, cls: str, weight: int, limits: Limits, max_in_flight: int | None = None
    ) -> Claim | Refusal:
        """Count a request in, or say why not.

        Args:
            tenant: whose request.
            cls: name of its class.
            weight: number of sequences that it asks for.
            limits: of the tenant in the class.
            max_in_flight: of the class, see :class:`vllm_qllm.access.roster.Roster`.
        """
        for name, limit in (
            ("max_concurrent", limits.max_concurrent),
            ("burst", limits.bucket if limits.requests_per_second else None),
            ("max_in_flight", max_in_flight),
        ):
            if limit is not None and weight > limit:
                text = f"{weight} sequences (prompts times n) in one request; allowed: {limit}"
                return Refusal("sequences", f"{text}, the {name} of {cls}", cls, "n")
        now, table = self._clock(), self._table
        with table.locked():
            row, total = table.row("used", tenant, cls), table.row("all", cls)
            if max_in_flight is not None:
                urgent = self._classes[: self._classes.index(cls) + 1]
                busy = sum(table.get(table.row("all", name), ACTIVE) for name in urgent)
                if busy + weight > max_in_flight:
                    wait = self._until_a_place(total, max_in_flight)
                    return Refusal("overload", f"too many requests of {cls} wait", cls, None, wait)
            active = table.get(row, ACTIVE)
            if limits.max_concurrent is not None and active + weight > limits.max_concurrent:
                wait = self._until_a_place(row, limits.max_concurrent)
                text = f"{limits.max_concurrent} requests of {cls} at a time are allowed"
                return Refusal("concurrency", text, cls, None, wait)
            if (rate := limits.requests_per_second) is not None:
                level = max(0.0, table.get(row, LEVEL) - rate * max(0.0, now - table.get(row, AT)))
                if level + weight > limits.bucket:
                    wait = math.ceil((level + weight - limits.bucket) / rate)
                    text = f"{rate:g} requests of {cls} a second are allowed"
                    return Refusal("rate", text, cls, None, max(1, wait))
                table.set(row, LEVEL, level + weight)
                table.set(row, AT, now)
            for each in (row, total):
                table.add(each, ACTIVE, weight)
                table.add(each, ADMITTED, 1)
        return Claim(tenant, cls, weight, now)

    def release(self, claim: Claim) -> None:
        """The request is answered, or its client has gone."""
        seconds, table = max(0.0, self._clock() - claim.since), self._table
        with table.locked():
            for row in (table.row("used", claim.tenant, claim.cls), table.row("all", claim.cls)):
                table.set(row, ACTIVE, max(0.0, table.get(row, ACTIVE) - claim.weight))
                mean = table.get(row, MEAN)
                table.set(row, MEAN, mean + LATEST * (seconds - mean) if mean else seconds)

    def count_refusal(self, tenant: str, refusal: Refusal) -> None:
        """For ``/metrics``."""
        with self._table.locked():
            row = self._table.row("used", tenant, refusal.cls)
            self._table.add(row, REFUSED + REASONS.index(refusal.reason), 1)

    def count_reload(self, outcome: str) -> None:
        """For ``/metrics``."""
        with self._table.locked():
            self._table.add(self._table.row("reloads", outcome), ADMITTED, 1)

    def numbers(self, tenant: str, cls: str) -> tuple[float, ...]:
        """What is known of a tenant in a class, in the order of this module's constants."""
        return self._table.numbers("used", tenant, cls) or (0.0,) * NUMBERS

    def reloads(self, outcome: str) -> float:
        """How often reading the tenants file again had this outcome."""
        return (self._table.numbers("reloads", outcome) or (0.0,) * NUMBERS)[ADMITTED]

    def _until_a_place(self, row: int, places: int) -> int:
        """Seconds until one of so many busy places is free, by how long answers took lately."""
        return min(MAX_RETRY_AFTER, max(1, math.ceil(self._table.get(row, MEAN) / places)))
