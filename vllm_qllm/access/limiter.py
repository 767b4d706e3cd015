# SPDX-License-Identifier: Apache-2.0
"""Counts what tenants use, and says when that is enough; together for all API servers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vllm_qllm.access.counter_table import CAPACITY, COUNTS, CounterTable, TableFull
from vllm_qllm.access.refusal import STATUS, Refusal
from vllm_qllm.access.tenant import Limits
from vllm_qllm.access.tenants_config import NONE, TenantsConfig
from vllm_qllm.access.tenants_file import OUTCOMES
from vllm_qllm.config.rule import is_int, show

# Counts of a row: being answered; how many were admitted; and from there on how many were
# refused, by reason.
ACTIVE, ADMITTED, REFUSED = range(3)
REASONS = tuple(STATUS)
# Measures of a row: level of the leaky bucket and when that was; mean seconds of an answer.
LEVEL, AT, MEAN = range(3)
MAX_RETRY_AFTER = 60
# A rate may be so small that the time until the next request is no number any more.
YEAR = 365 * 86_400
# More sequences than any server can hold, and few enough to be counted of many requests.
MAX_SEQUENCES = 2**31 - 1
# Of differences of the clock, and of all that is computed with them.
ROUNDING_SECONDS = 1e-7
# Weight of the latest answer in the mean.
LATEST = 0.1
# Beyond that share of the rows, names that are no longer there make room.
CROWDED = 0.75


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
        self,
        table: CounterTable,
        classes: Sequence[str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._table = table
        self._classes = tuple(classes)
        self._clock = clock

    def reserve(self, tenants_config: TenantsConfig) -> None:
        """Make room for all that a configuration names.

        Names of former ones make room when it is short, once all of their requests are
        answered.

        Raises:
            TableFull: too many requests of tenants that are gone are still being answered.
        """
        names: list[tuple[str, ...]] = [("all", cls) for cls in self._classes]
        names += [("reloads", outcome) for outcome in OUTCOMES]
        used = (*self._classes, NONE)
        names += [
            ("used", tenant, cls) for tenant in (*tenants_config.tenants, NONE) for cls in used
        ]
        table = self._table
        with table.locked():
            new = sum(table.counts(*name) is None for name in names)
            if new and table.taken() + new > CROWDED * CAPACITY:
                table.keep(names, lambda row: table.count(row, ACTIVE) > 0)
                # Before anything is changed: one that does not fit leaves the old one whole.
                new = sum(table.counts(*name) is None for name in names)
                if table.taken() + new > CAPACITY:
                    raise TableFull(
                        "tenants that are gone from it have requests that are still answered, and "
                        "there is no room for the new ones yet"
                    )
            for name in names:
                table.row(*name)

    def admit(
        self,
        tenant: str,
        cls: str,
        weight: int,
        limits: Limits,
        max_in_flight: int | None = None,
        held: Claim | None = None,
    ) -> Claim | Refusal:
        """Count a request in, or say why not.

        Args:
            tenant: whose request.
            cls: name of its class.
            weight: number of sequences that it asks for.
            limits: of the tenant in the class.
            max_in_flight: of the class, see :class:`vllm_qllm.access.tenants_config.TenantsConfig`.
            held: what the request holds in the class already, when it asks for more.
        """
        if not is_int(weight) or not 1 <= weight <= MAX_SEQUENCES:
            text = f"{show(weight)} sequences (prompts times n); allowed: 1 to {MAX_SEQUENCES}"
            return Refusal("sequences", text, cls, "n")
        whole = weight + (held.weight if held else 0)
        for name, limit in (
            ("max_concurrent", limits.max_concurrent),
            ("burst", limits.bucket if limits.requests_per_second else None),
            ("max_in_flight", max_in_flight),
        ):
            if limit is not None and whole > limit:
                text = f"{whole} sequences (prompts times n) in one request; allowed: {limit}"
                return Refusal("sequences", f"{text}, the {name} of {cls}", cls, "n")
        now, table = self._clock(), self._table
        with table.locked():
            try:
                row, total = table.row("used", tenant, cls), table.row("all", cls)
            except TableFull:
                text = "the server keeps account of too many tenants"
                return Refusal("overload", text, cls, None, MAX_RETRY_AFTER)
            if max_in_flight is not None:
                urgent = self._classes[: self._classes.index(cls) + 1]
                busy = sum((table.counts("all", name) or (0,))[ACTIVE] for name in urgent)
                if busy + weight > max_in_flight:
                    wait = self._until_a_place(total, max_in_flight)
                    return Refusal("overload", f"too many requests of {cls} wait", cls, None, wait)
            active = table.count(row, ACTIVE)
            if limits.max_concurrent is not None and active + weight > limits.max_concurrent:
                wait = self._until_a_place(row, limits.max_concurrent)
                text = f"{limits.max_concurrent} requests of {cls} at a time are allowed"
                return Refusal("concurrency", text, cls, None, wait)
            if (rate := limits.requests_per_second) is not None:
                past = max(0.0, now - table.measure(row, AT))
                level = max(0.0, table.measure(row, LEVEL) - rate * past)
                # Who comes when it was told to is not refused for the rounding of a clock.
                if level + weight > limits.bucket + ROUNDING_SECONDS * rate:
                    wait = math.ceil(min(YEAR, (level + weight - limits.bucket) / rate))
                    text = f"{rate:g} requests of {cls} a second are allowed"
                    return Refusal("rate", text, cls, None, max(1, wait))
                table.set_measure(row, LEVEL, level + weight)
                table.set_measure(row, AT, now)
            for each in (row, total):
                table.add(each, ACTIVE, weight)
                table.add(each, ADMITTED, held is None)
        return Claim(tenant, cls, whole, held.since if held else now)

    def release(self, claim: Claim) -> None:
        """The request is answered, or its client has gone."""
        seconds, table = max(0.0, self._clock() - claim.since), self._table
        with table.locked():
            # Neither is given up while the request is counted.
            for row in (table.row("used", claim.tenant, claim.cls), table.row("all", claim.cls)):
                table.add(row, ACTIVE, -claim.weight)
                mean = table.measure(row, MEAN)
                mean = mean + LATEST * (seconds - mean) if mean else seconds
                table.set_measure(row, MEAN, mean)

    def count_refusal(self, tenant: str, refusal: Refusal) -> None:
        """For ``/metrics``."""
        self._count(("used", tenant, refusal.cls), REFUSED + REASONS.index(refusal.reason))

    def count_reload(self, outcome: str) -> None:
        """For ``/metrics``."""
        self._count(("reloads", outcome), ADMITTED)

    def _count(self, name: tuple[str, ...], index: int) -> None:
        table = self._table
        with table.locked():
            try:
                table.add(table.row(*name), index, 1)
            except TableFull:
                return  # a number less on /metrics: no answer may depend on it

    def numbers(self, tenant: str, cls: str) -> tuple[int, ...]:
        """What is counted of a tenant in a class, in the order of this module's constants."""
        return self._numbers("used", tenant, cls)

    def reloads(self, outcome: str) -> int:
        """How often reading the tenants file again had this outcome."""
        return self._numbers("reloads", outcome)[ADMITTED]

    def _numbers(self, *name: str) -> tuple[int, ...]:
        with self._table.locked():
            return self._table.counts(*name) or (0,) * COUNTS

    def _until_a_place(self, row: int, places: int) -> int:
        """Seconds until one of so many busy places is free, by how long answers took lately."""
        mean = self._table.measure(row, MEAN)
        return min(MAX_RETRY_AFTER, max(1, math.ceil(mean / places)))
