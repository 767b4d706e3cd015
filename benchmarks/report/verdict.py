# SPDX-License-Identifier: Apache-2.0
"""Where ours loses to a stock system, found in the numbers rather than chosen."""

import math

from benchmarks.record.groups import Reader, Results, middle
from benchmarks.record.record import BE, LS
from benchmarks.record.summary import number, of_class, together

OURS = "strict"
STOCK = (
    *("fcfs", "priority-8192", "priority-2048", "priority-512", "priority-256"),
    "priority-threshold",
)
# Below this, rounds of one and the same system differ as much.
MARGIN = 1.05

# Name, unit, whether less is better, and how to read it.
MEASURES: tuple[tuple[str, str, bool, Reader], ...] = (
    ("LS TTFT p50", " s", True, lambda r: of_class(r, LS).ttft.p50),
    ("LS TTFT p99", " s", True, lambda r: of_class(r, LS).ttft.p99),
    ("LS TPOT p50", " s", True, lambda r: of_class(r, LS).tpot.p50),
    ("LS gap p99", " s", True, lambda r: of_class(r, LS).gap.p99),
    ("LS end to end p50", " s", True, lambda r: of_class(r, LS).e2e.p50),
    ("BE end to end p50", " s", True, lambda r: of_class(r, BE).e2e.p50),
    ("BE throughput", " tok/s", False, lambda r: of_class(r, BE).tokens_per_second),
    ("LS + BE throughput", " tok/s", False, together),
)


def losses(results: Results) -> list[str]:
    """A line for each scenario, point and measure in which ``strict`` is beaten by more than noise,
    by the best of the stock systems."""
    lines = []
    for scenario in results.scenarios:
        points = dict.fromkeys(g.point for g in results.groups(scenario))
        for point in points:
            ours = results.get(scenario, OURS, point)
            rivals = [g for name in STOCK if (g := results.get(scenario, name, point))]
            if ours is None or not rivals:
                continue
            where = scenario if point is None else f"{scenario} at {point.value:g} {point.name}"
            for name, unit, less, read in MEASURES:
                mine = middle(ours, read)
                theirs = [(v, g.system) for g in rivals if (v := middle(g, read)) is not None]
                if mine is None or not theirs:
                    continue
                best, system = min(theirs) if less else max(theirs)
                worse = mine > best * MARGIN if less else mine * MARGIN < best
                if worse and not (math.isinf(mine) and math.isinf(best)):
                    lines.append(
                        f"- {where}, {name}: {number(mine)}{unit}; {system} {number(best)}{unit}"
                    )
    return lines
