# SPDX-License-Identifier: Apache-2.0
"""What is left for best-effort work: its tokens as the run goes on."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from benchmarks.pictures import style
from benchmarks.record.groups import Group, Results
from benchmarks.record.record import BE, Record


def tokens_by(record: Record) -> tuple[list[float], list[int]]:
    """Times since the window began, and all BE tokens done by then; a prompt's count at its end."""
    start, end = record.window
    done: list[tuple[float, int]] = []
    for request in record.of(BE):
        for place, time in enumerate(request.tokens):
            if start <= time < end:
                done.append((time - start, 1 + (request.prompt if place == 0 else 0)))
    done.sort()
    times, totals, total = [0.0], [0], 0
    for time, count in done:
        total += count
        times.append(time)
        totals.append(total)
    return [*times, end - start], [*totals, total]


def first_round(group: Group) -> Record:
    """The round that is drawn: progress of several rounds is no line."""
    return min(group.good, key=lambda record: record.round)


def be_progress(results: Results, scenario: str) -> Figure | None:
    """BE tokens over time by system, at the lowest load; None where no BE was done."""
    groups = [g for g in results.groups(scenario) if g.good and first_round(g).of(BE)]
    if not groups:
        return None
    lowest = min((g.point.value for g in groups if g.point), default=None)
    groups = [g for g in groups if g.point is None or g.point.value == lowest]
    names: Sequence[str] = [g.system for g in groups]
    figure, axes = style.new()
    ends = []
    for group in groups:
        record = first_round(group)
        times, totals = tokens_by(record)
        its_colour = style.colour(group.system, names)
        axes.step(
            times,
            [total / 1e3 for total in totals],
            where="post",
            color=its_colour,
            linewidth=1.4,
            linestyle=style.line_style(group.system),
        )
        rate = totals[-1] / record.seconds
        name = f"{group.system}: {rate:.0f} tok/s"
        ends.append((times[-1], totals[-1] / 1e3, name, its_colour))
    axes.set_xlim(0, max(x for x, *_ in ends))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("seconds of the window")
    axes.set_ylabel("best-effort tokens, prompts included (thousands)")
    at = "" if groups[0].point is None else f", {lowest:g} {groups[0].point.name}"
    axes.set_title(f"{scenario}{at}: what best-effort work gets done")
    style.caption(figure, [first_round(g) for g in groups], "first round")
    figure.draw_without_rendering()
    style.direct_labels(axes, ends)
    return figure
