# SPDX-License-Identifier: Apache-2.0
"""How every picture looks: colours that colour-blind people can tell apart, and little ink."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.measurement.conditions import sentence
from benchmarks.record.record import Record

# Okabe and Ito's palette: what is ours is blue, what is stock is warm, a bound is grey.
OURS = {
    "strict": "#0072B2",
    "strict-8192": "#004a75",
    "strict-layer": "#56B4E9",
    "strict-ride": "#7b6fd0",
    "strict-share": "#332288",
    "step": "#009E73",
    "be-alone-strict": "#0072B2",
    "ls-alone-strict": "#0072B2",
}
STOCK = {
    "fcfs": "#D55E00",
    "priority-8192": "#8c3b00",
    "priority-2048": "#E69F00",
    "priority-512": "#CC79A7",
    "priority-256": "#a04f7d",
    "priority-threshold": "#a58b00",
}
ALONE = {"ls-alone": "#6e6e6e", "be-alone": "#6e6e6e"}
COLOURS = OURS | STOCK | ALONE
OTHERS = ("#222222", "#884422", "#228844", "#882255", "#446688")
INK, FAINT = "#333333", "#d9d9d9"

SETTINGS: Mapping[str, Any] = {
    "font.size": 9.0,
    "font.family": "sans-serif",
    "axes.titlesize": 11.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.grid": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.8,
    # Text stays text: it can be searched, and files are small.
    "svg.fonttype": "none",
    # The same input gives the same file.
    "svg.hashsalt": "vllm-qllm",
}


def colour(system: str, systems: Sequence[str] = ()) -> str:
    """Of a system; those without a colour of their own get one by their place."""
    if system in COLOURS:
        return COLOURS[system]
    strangers = [name for name in systems if name not in COLOURS] or [system]
    return OTHERS[strangers.index(system) % len(OTHERS)]


def line_style(system: str) -> str:
    """Dashed for a system that has the machine to itself: a bound, no competitor."""
    return "--" if system in ALONE or "alone" in system else "-"


def new(width: float = 7.6, height: float = 4.6) -> tuple[Figure, Axes]:
    """A figure with one plot; sizes in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def direct_labels(axes: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Names at the right ends of lines, moved apart where they would overlap.

    Args:
        axes: whose limits and scales are final.
        ends: x, y, name and colour of each.
    """
    height = axes.get_window_extent().height
    least = 11.5 * axes.figure.dpi / 72 / height  # of the axes' height
    places: list[tuple[float, float, str, str]] = []
    for x, y, name, its_colour in ends:
        at = axes.transAxes.inverted().transform(axes.transData.transform((x, y)))
        places.append((float(at[1]), float(at[0]), name, its_colour))
    places.sort()
    heights = apart([y for y, *_ in places], least)
    # From the line's end to the left edge of its name, so that it crosses no other name.
    leader = {"arrowstyle": "-", "lw": 0.5, "relpos": (0.0, 0.5), "shrinkA": 0, "shrinkB": 2}
    for (y, x, name, its_colour), moved in zip(places, heights, strict=True):
        axes.annotate(
            name,
            xy=(x, y),
            xytext=(1.015, moved),
            xycoords="axes fraction",
            textcoords="axes fraction",
            va="center",
            color=its_colour,
            fontsize=8.5,
            annotation_clip=False,
            arrowprops=leader | {"color": its_colour} if abs(moved - y) > least / 4 else None,
        )


def apart(ascending: Sequence[float], least: float) -> list[float]:
    """Numbers near these that are at least so far from each other, from 0 to 1 if they fit."""

    def placed(centre: float, members: int) -> tuple[float, int]:
        half = least * (members - 1) / 2
        return min(max(centre, half), max(1 - half, half)), members

    groups: list[tuple[float, int]] = []  # centre, members
    for value in ascending:
        groups.append(placed(value, 1))
        while len(groups) > 1:
            (low, n), (high, m) = groups[-2:]
            if high - low >= least * (n + m) / 2:
                break
            groups[-2:] = [placed((low * n + high * m) / (n + m), n + m)]
    return [c + least * (i - (n - 1) / 2) for c, n in groups for i in range(n)]


def caption(figure: Figure, records: Sequence[Record], more: str = "") -> None:
    """Under a picture: what was measured, and on what."""
    some = records[0]
    machine = sentence(some.conditions) if some.conditions else "conditions unknown"
    rounds = len({r.round for r in records})
    seconds = some.window[1] - some.window[0]
    model = some.plan.get("model")
    parts = [
        *([more] if more else []),
        *([f"model {model}"] if model else []),
        f"{seconds:g} s each, {rounds} round{'s' if rounds > 1 else ''}",
        machine,
    ]
    small_print(figure, "; ".join(parts) + ".")


def small_print(figure: Figure, text: str) -> None:
    """Text under a picture, on lines that are as long as it is wide."""
    width = int(21 * figure.get_figwidth())
    figure.supxlabel(wrapped(text, width), fontsize=6.5, color="#777777", x=0.01, ha="left")


def wrapped(text: str, width: int) -> str:
    """Lines of at most ``width`` characters."""
    return "\n".join(line.strip() for line in re.findall(rf".{{1,{width}}}(?:\s|$)", text))


def save(figure: Figure, path: Path) -> Path:
    """Write it, in the format that its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=160, metadata={"Date": None} if path.suffix == ".svg" else None)
    return path
