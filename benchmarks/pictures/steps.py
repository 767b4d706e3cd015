# SPDX-License-Identifier: Apache-2.0
"""One stretch of a run, step by step: which step ran, which was suspended, and in which layer."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from benchmarks.pictures import style
from vllm_qllm.timeline.spans import Span, request_spans, step_spans

CLASSES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")  # most urgent first
MARK = "#D55E00"


def busiest(engine: Mapping[str, Any], seconds: float) -> float:
    """Where a stretch of so many seconds begins that has the most suspensions in it."""
    events = sorted(engine["events"], key=lambda e: e["time"])
    stops = [e["time"] for e in events if e["kind"] == "step_suspended"]
    if not stops:
        return max(engine["start"], events[0]["time"]) if events else float(engine["start"])

    def within(start: float) -> int:
        return sum(start <= stop < start + seconds for stop in stops)

    return max((stop - 0.1 * seconds for stop in stops), key=within)


def stretch(
    document: Mapping[str, Any], seconds: float, start: float | None
) -> tuple[Mapping[str, Any], list[Mapping[str, Any]], float]:
    """The first engine of a document, its events in order of time, and where a stretch begins.

    Arguments and errors are those of :func:`timeline`.
    """
    if not document["engines"] or not document["engines"][0]["events"]:
        raise ValueError("the timeline is empty: nothing happened while it was recorded")
    engine = document["engines"][0]
    events = sorted(engine["events"], key=lambda e: e["time"])
    return engine, events, busiest(engine, seconds) if start is None else start


def timeline(
    document: Mapping[str, Any], seconds: float = 3.0, start: float | None = None, note: str = ""
) -> Figure:
    """Steps by nesting depth, layers at which they stopped, and requests below.

    Args:
        document: as ``/qllm/timeline`` answers it.
        seconds: how long a stretch is drawn.
        start: of it, on the engine's clock; None for the one with the most suspensions.
        note: added to the caption.

    Raises:
        ValueError: the document has no engine, or nothing happened in it.
    """
    engine, events, begin = stretch(document, seconds, start)
    end = begin + seconds
    steps = [
        (depth, span)
        for depth, span in step_spans(events, engine["now"])
        if span.end > begin and span.start < end
    ]
    colours = {c: CLASSES[i % len(CLASSES)] for i, c in enumerate(engine["classes"])}
    figure = Figure(figsize=(10.5, 5.6), layout="constrained")
    above, layers, below = figure.subplots(
        3, 1, sharex=True, gridspec_kw={"height_ratios": [1.5, 1.2, 1.5]}
    )
    _steps(above, steps, begin, colours)
    _layers(layers, steps, begin, seconds, colours)
    _requests(below, events, engine, begin, end, colours)
    for axes in (above, layers, below):
        axes.set_xlim(0, seconds)
        axes.grid(axis="y", visible=False)
    below.set_xlabel("seconds")
    nested = sum(span.category == "step" and depth > 0 for depth, span in steps)
    stops = sum(span.category == "suspended" for _, span in steps)
    figure.suptitle(
        f"{seconds:g} s of a server: {count(stops, 'suspension')}, {count(nested, 'nested step')}",
        x=0.01,
        ha="left",
        weight="bold",
    )
    words = "Engine's own event log. Hatched: the step is suspended, and what runs is above it."
    style.small_print(figure, f"{words} {note}".strip())
    return figure


def count(number: int, what: str) -> str:
    """``1 step``, ``2 steps``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _bar(axes: Axes, left: float, width: float, y: float, height: float, **look: Any) -> None:
    axes.add_patch(Rectangle((left, y), width, height, **look))


def _steps(
    axes: Axes, steps: Sequence[tuple[int, Span]], begin: float, colours: Mapping[str, str]
) -> None:
    for depth, span in steps:
        left, width = span.start - begin, span.end - span.start
        its_colour = colours[span.args["class"]]
        if span.category == "step":
            _bar(axes, left, width, depth - 0.38, 0.76, facecolor=its_colour, ec="white", lw=0.6)
        elif span.category == "suspended":
            look = {"facecolor": "white", "ec": its_colour, "hatch": "//////", "lw": 0.0}
            _bar(axes, left, width, depth - 0.3, 0.6, **look)
    deepest = max((depth for depth, _ in steps), default=0)
    axes.set_ylim(-0.6, deepest + 0.6)
    names = ["step"] + [f"nested {d} deep" if d > 1 else "nested" for d in range(1, deepest + 1)]
    axes.set_yticks(range(deepest + 1), names)
    for place, (name, its_colour) in enumerate(colours.items()):
        axes.text(
            1.0 - 0.2 * place,
            1.04,
            f"■ {name}",
            color=its_colour,
            transform=axes.transAxes,
            ha="right",
            fontsize=8.5,
        )


def _layers(
    axes: Axes,
    steps: Sequence[tuple[int, Span]],
    begin: float,
    seconds: float,
    colours: Mapping[str, str],
) -> None:
    """How far each suspended step had come: its layer, along the time that it ran."""
    stops = [span for _, span in steps if span.category == "suspended"]
    deepest = max((s.args["layer"] for s in stops), default=0)
    for span in stops:
        left, right, layer = span.start - begin, span.end - begin, span.args["layer"]
        its_colour = colours[span.args["class"]]
        axes.plot([left, right], [layer, layer], color=its_colour, lw=2.2, solid_capstyle="butt")
        marker = "s" if span.args["where"] == "experts" else "o"
        axes.plot([left], [layer], marker=marker, color=its_colour, markersize=4.5)
    for whole, own in _progress(steps):
        xs = [whole.start - begin]
        ys: list[float] = [-0.5]
        for stop in own:
            xs += [stop.start - begin, stop.end - begin]
            ys += [stop.args["layer"], stop.args["layer"]]
        axes.plot(xs, ys, color=colours[whole.args["class"]], lw=0.7, ls=":")
    axes.set_ylim(-0.8, deepest + 0.8)
    axes.set_ylabel("suspended\nat layer")
    axes.text(
        1.0, 1.03, "● at attention   ■ among experts", transform=axes.transAxes, ha="right",
        fontsize=7.5, color="#777777",
    )  # fmt: skip


def _progress(steps: Sequence[tuple[int, Span]]) -> list[tuple[Span, list[Span]]]:
    wholes = {s.args["step"]: s for _, s in steps if s.category == "step"}
    own: dict[int, list[Span]] = {}
    for _, span in steps:
        if span.category == "suspended":
            own.setdefault(span.args["step"], []).append(span)
    return [(wholes[number], stops) for number, stops in own.items() if number in wholes]


def _requests(
    axes: Axes,
    events: Sequence[Mapping[str, Any]],
    engine: Mapping[str, Any],
    begin: float,
    end: float,
    colours: Mapping[str, str],
) -> None:
    """Each request's waiting time, prefill and decodes; the urgent ones on top."""
    rows = 0
    ticks: list[tuple[float, str]] = []
    for cls in reversed(engine["classes"]):
        own = [e for e in events if e["class"] == cls]
        first, free = rows, list[float]()
        for (_, *phases), _ in request_spans(own, engine["now"]):
            if not phases or phases[0].start > end or phases[-1].end < begin:
                continue
            row = next((r for r, t in enumerate(free) if t <= phases[0].start), len(free))
            free[row : row + 1] = [phases[-1].end]
            for span in phases:
                left, width = span.start - begin, span.end - span.start
                height = {"waiting": 0.14, "prefill": 0.74, "decode": 0.4}[span.name]
                look = {"facecolor": MARK if span.name == "waiting" else colours[cls], "lw": 0}
                _bar(axes, left, width, first + row - height / 2, height, **look)
        rows += len(free)
        if free:
            ticks.append((first + (len(free) - 1) / 2, f"requests,\n{cls}"))
    axes.set_ylim(-0.7, max(rows, 1) - 0.3)
    axes.set_yticks([y for y, _ in ticks], [name for _, name in ticks])
    axes.text(
        1.0, 1.03, "thin red: waits   thick: prefill   middle: decodes", ha="right",
        transform=axes.transAxes, fontsize=7.5, color="#777777",
    )  # fmt: skip
