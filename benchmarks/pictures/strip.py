# SPDX-License-Identifier: Apache-2.0
"""The idea on one strip: urgent steps above the best-effort step that they suspend."""

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from benchmarks.pictures.steps import CLASSES, stretch
from vllm_qllm.timeline.spans import Span, step_spans

# Read on a white page as well as on a black one.
INK = "#7d8590"
HEIGHT = 0.8


def strip(document: Mapping[str, Any], seconds: float = 2.0, start: float | None = None) -> Figure:
    """One row for suspended steps and one for what runs on top of them, on no background.

    Args:
        document: as ``/qllm/timeline`` answers it, of an engine with two classes.
        seconds: how long a stretch is drawn.
        start: of it, on the engine's clock; None for the one with the most suspensions.

    Raises:
        ValueError: the document has no engine, or nothing happened in it.
    """
    engine, events, begin = stretch(document, seconds, start)
    figure = Figure(figsize=(9.6, 1.9), layout="constrained")
    figure.patch.set_alpha(0.0)
    axes = figure.subplots()
    axes.patch.set_alpha(0.0)
    urgent = engine["classes"][0]
    for _, span in step_spans(events, engine["now"]):
        if span.end > begin and span.start < begin + seconds and span.category != "copies":
            _draw(axes, span, begin, 1 if span.args["class"] == urgent else 0)
    axes.set_xlim(0, seconds)
    axes.set_ylim(-0.55, 1.55)
    axes.set_yticks([1, 0], ["urgent", "best effort"])
    axes.set_xlabel("seconds", color=INK)
    axes.tick_params(colors=INK, length=0)
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_color(INK)
    return figure


def _draw(axes: Axes, span: Span, begin: float, row: int) -> None:
    left, width, bottom = span.start - begin, span.end - span.start, row - HEIGHT / 2
    colour = CLASSES[0] if row else CLASSES[1]
    if span.category == "step":
        axes.add_patch(Rectangle((left, bottom), width, HEIGHT, facecolor=colour, lw=0))
        # Two steps in a row are two.
        axes.plot([left, left], [bottom, bottom + HEIGHT], color=INK, lw=0.5)
    else:
        look: dict[str, Any] = {"facecolor": "#ffffff", "ec": colour, "hatch": "//////", "lw": 0}
        axes.add_patch(Rectangle((left, bottom), width, HEIGHT, **look))
