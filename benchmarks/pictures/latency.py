# SPDX-License-Identifier: Apache-2.0
"""What urgent requests wait: against the load, and as a distribution."""

import math
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from benchmarks.pictures import style
from benchmarks.record.groups import Group, Results
from benchmarks.record.record import LS, Record
from benchmarks.record.summary import counted, to_first_token
from vllm_qllm.percentile import percentile

Values = Callable[[Record], Sequence[float]]


def ttfts(record: Record) -> list[float]:
    """Seconds from due to the first token of each LS request that counts."""
    return [to_first_token(r) for r in counted(record, LS)]


def responses(record: Record) -> list[float]:
    """Seconds from arrival in the engine to the first work, where the engine recorded them."""
    return [t for name, times in record.responses.items() if name == LS for t in times]


def pooled(group: Group, values: Values) -> list[float]:
    """Of all rounds together, ascending."""
    return sorted(value for record in group.good for value in values(record))


def duration(seconds: float, _: object = None) -> str:
    """As people write it: ``20 ms``, ``1.5 s``."""
    return f"{1e3 * seconds:g} ms" if seconds < 1 else f"{seconds:g} s"


def logarithmic(axis: Axes, which: str) -> None:
    """A logarithmic axis of durations, on which 1, 2 and 5 are written."""
    getattr(axis, f"set_{which}scale")("log", subs=[2, 5])
    one = getattr(axis, f"{which}axis")
    one.set_major_formatter(FuncFormatter(duration))
    one.set_minor_formatter(FuncFormatter(duration))
    one.set_tick_params(which="both", length=3.5, pad=3.5)  # or labels stand at two heights
    low, high = getattr(axis, f"get_{which}lim")()
    if high / low > 300:
        one.set_minor_formatter(NullFormatter())


def against_load(results: Results, scenario: str) -> Figure | None:
    """LS TTFT, median and p99, for each system at each load; None with fewer than two loads."""
    groups = [g for g in results.groups(scenario) if g.point is not None and g.good]
    if len({g.point.value for g in groups if g.point}) < 2:
        return None
    figure = Figure(figsize=(9.6, 4.8), layout="constrained")
    both = figure.subplots(1, 2, sharey=True, sharex=True)
    systems = list(dict.fromkeys(g.system for g in groups))
    ends: list[list[tuple[float, float, str, str]]] = [[], []]
    for axes, percent, last in zip(both, (50, 99), ends, strict=True):
        for system in systems:
            points = [
                (g.point.value, percentile(pooled(g, ttfts), percent))
                for g in groups
                if g.system == system and g.point
            ]
            known = [(x, y) for x, y in points if y is not None and math.isfinite(y)]
            if not known:
                continue
            its_colour = style.colour(system, systems)
            axes.plot(
                *zip(*known, strict=True),
                marker="o",
                markersize=4,
                color=its_colour,
                linestyle=style.line_style(system),
            )
            never = len(known) < len(points)
            name = f"{system} (beyond: never)" if never else system
            last.append((*known[-1], name, its_colour))
        axes.set_title("median" if percent == 50 else "99th percentile")
        axes.set_xlabel(groups[0].point.name if groups[0].point else "")
        axes.set_xticks(sorted({g.point.value for g in groups if g.point}))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    both[0].set_ylabel("LS time to first token")
    logarithmic(both[0], "y")
    figure.suptitle(
        f"{scenario}: what an urgent request waits, by load", x=0.01, ha="left", weight="bold"
    )
    style.caption(figure, [r for g in groups for r in g.good])
    figure.draw_without_rendering()
    style.direct_labels(both[1], ends[1])
    return figure


def distribution(
    results: Results, scenario: str, values: Values, title: str, label: str
) -> Figure | None:
    """The share of requests that waited at most so long, by system; None where nothing is known.

    Where a scenario has several loads it is the highest that all systems were measured at.
    """
    groups = [g for g in results.groups(scenario) if pooled(g, values)]
    if not groups:
        return None
    by_point = {g.point.value if g.point else None for g in groups}
    systems = {g.system for g in groups}
    common = [
        p
        for p in by_point
        if {g.system for g in groups if (g.point.value if g.point else None) == p} == systems
    ]
    chosen = max(common or by_point, key=lambda p: -1.0 if p is None else p)
    groups = [g for g in groups if (g.point.value if g.point else None) == chosen]
    figure, axes = style.new()
    names = [g.system for g in groups]
    ends = []
    for group in groups:
        all_of_them = pooled(group, values)
        finite = [v for v in all_of_them if math.isfinite(v)]
        share = [100.0 * (i + 1) / len(all_of_them) for i in range(len(finite))]
        its_colour = style.colour(group.system, names)
        axes.step(
            [finite[0], *finite] if finite else [],
            [0.0, *share] if finite else [],
            where="post",
            color=its_colour,
            linestyle=style.line_style(group.system),
        )
        if finite:
            ends.append((finite[-1], share[-1], f"{group.system} ({len(all_of_them)})", its_colour))
    logarithmic(axes, "x")
    axes.set_ylim(0, 102)
    axes.set_xlabel(label)
    axes.set_ylabel("% of requests")
    at = "" if groups[0].point is None else f", {groups[0].point.value:g} {groups[0].point.name}"
    axes.set_title(f"{scenario}{at}: {title}")
    style.caption(figure, [r for g in groups for r in g.good], "number of requests in brackets")
    legend(axes, ends)
    return figure


def legend(axes: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Names at the right, in the order in which the lines get to 100 %: the fastest first."""
    top = 0.97
    for place, (_, _, name, its_colour) in enumerate(sorted(ends)):
        axes.text(
            1.015,
            top - 0.065 * place,
            name,
            transform=axes.transAxes,
            color=its_colour,
            va="top",
            fontsize=8.5,
        )
