# SPDX-License-Identifier: Apache-2.0
"""What README.md needs: two scenarios, all of them at a glance, QLLM's ratios, where ours loses."""

import math
from collections.abc import Sequence

from benchmarks.record.groups import ALONE, Group, Reader, Results, middle
from benchmarks.record.record import BE, LS, Record
from benchmarks.record.summary import number, of_class, together
from benchmarks.report import peers
from benchmarks.report.labels import caption, first, heading, ratio
from benchmarks.report.markdown import table
from benchmarks.report.verdict import OURS, STOCK, losses

# With a row for each system.
SHOWN = ("mix", "kv-pressure")


def ttft_p99(record: Record) -> float | None:
    """Seconds until all but one in a hundred LS requests had their first token."""
    return of_class(record, LS).ttft.p99


def compact(results: Results, scenario: str) -> str:
    """A row for each system, with few columns."""
    columns: list[tuple[str, bool, Reader]] = [
        ("LS TTFT p50", True, lambda r: of_class(r, LS).ttft.p50),
        ("p99", True, ttft_p99),
        ("LS TPOT p50", True, lambda r: of_class(r, LS).tpot.p50),
        ("LS gap p99", False, lambda r: of_class(r, LS).gap.p99),
        ("BE tok/s", False, lambda r: of_class(r, BE).tokens_per_second),
        ("LS + BE tok/s", False, together),
    ]
    rows = []
    for group in results.groups(scenario):
        alone = results.alone(group)
        row = first(group)
        for _, compared, read in columns:
            base = middle(alone, read) if compared and alone not in (None, group) else None
            row.append(ratio(middle(group, read), base))
        rows.append(row)
    return table([*heading(results, scenario), *(c[0] for c in columns)], rows)


def best(groups: Sequence[Group], read: Reader, *, most: bool) -> tuple[str, float] | None:
    """System and value of the best of some groups."""
    found = [(g.system, v) for g in groups if (v := middle(g, read)) is not None]
    if not found:
        return None
    return (max if most else min)(found, key=lambda pair: pair[1])


def overview(results: Results) -> str:
    """A row for each scenario and point: LS alone, the best stock system, ours."""
    rows = []
    for scenario in results.scenarios:
        for point in dict.fromkeys(g.point for g in results.groups(scenario)):
            ours = results.get(scenario, OURS, point)
            stock = [g for name in STOCK if (g := results.get(scenario, name, point))]
            wait = best(stock, ttft_p99, most=False)
            speed = best(stock, together, most=True)
            if ours is None or wait is None or speed is None:
                continue
            alone = results.get(scenario, ALONE, point)
            mine, tokens = middle(ours, ttft_p99), middle(ours, together)
            known = mine is not None and mine and not math.isinf(mine)
            rows.append(
                [
                    scenario if point is None else f"{scenario}, {point.value:g} {point.name}",
                    number(None if alone is None else middle(alone, ttft_p99)),
                    f"{number(wait[1])} ({wait[0]})",
                    number(mine),
                    number(wait[1] / mine) if known and mine else "-",
                    f"{number(speed[1])} ({speed[0]})",
                    number(tokens),
                    f"{tokens / speed[1]:.2f}" if tokens is not None and speed[1] else "-",
                ]
            )
    columns = ["scenario", "LS TTFT p99: alone", "best stock", OURS, "times shorter"]
    columns += ["tok/s: best stock", OURS, "ratio"]
    return table(columns, rows) if rows else ""


def render(records: Sequence[Record]) -> str:
    """Everything that README.md needs."""
    results = Results(records)
    parts = [caption(records)]
    for scenario in SHOWN:
        if scenario in results.scenarios:
            parts += [f"`{scenario}`, seconds; in brackets the ratio to LS alone:"]
            parts.append(compact(results, scenario))
    parts.append(overview(results))
    if "qllm" in results.scenarios:
        parts.append(peers.section(results, "qllm"))
    lost = losses(results)
    if lost:
        parts += ["Where ours loses to a stock system:", "\n".join(lost)]
    return "\n\n".join(part for part in parts if part)
