# SPDX-License-Identifier: Apache-2.0
"""Pictures show what the result files hold, and say what they leave out."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from benchmarks.pictures.__main__ import main
from benchmarks.pictures.latency import against_load, distribution, duration, responses, ttfts
from benchmarks.pictures.progress import be_progress, tokens_by
from benchmarks.pictures.steps import CLASSES, MARK, busiest, timeline
from benchmarks.pictures.strip import strip
from benchmarks.pictures.style import COLOURS, apart, colour, wrapped
from benchmarks.record.groups import Results
from benchmarks.record.record import BE, Record, save
from benchmarks.record.summary import tokens_in_window
from tests.benchmarks.records import record, request

EXAMPLE = Path("benchmarks/results/example")


def waits(system: str, *seconds: float | None, **more: object) -> Record:
    """A run whose LS requests waited so long."""
    requests = [request(i, 11.0 + i / 10, wait, (40.0, 40.0)) for i, wait in enumerate(seconds)]
    return record(system, *requests, **more)


def lines(axes: Axes) -> dict[str, tuple[list[float], list[float]]]:
    """The drawn lines by colour."""
    return {
        str(line.get_color()): (list(line.get_xdata()), list(line.get_ydata()))
        for line in axes.get_lines()
    }


def words(figure: Figure) -> str:
    """All text of a figure."""
    from matplotlib.text import Text

    return " ".join(text.get_text() for text in figure.findobj(Text))  # type: ignore[attr-defined]


def test_the_example_is_drawn_by_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(EXAMPLE), "-o", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "mix: no picture of load: fewer than two loads were measured" in said
    for name in ("ttft", "progress"):
        path = tmp_path / f"mix-{name}.svg"
        assert str(path) in said
        shown = " ".join(ElementTree.parse(path).getroot().itertext())
        assert "strict" in shown and "fcfs" in shown
        assert "vLLM 0.32.0" in shown, "the conditions are in the caption"


def test_the_same_results_make_the_same_file(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        assert main([str(EXAMPLE), "-o", str(tmp_path / folder)]) == 0
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_ttft_against_load_is_median_and_p99_of_all_rounds() -> None:
    runs = [
        waits("strict", 0.1, 0.2, 0.3, point=1.0),
        waits("strict", 0.4, 0.5, point=1.0, round=1),
        waits("strict", 0.5, point=2.0),
        waits("fcfs", 1.0, point=1.0),
        waits("fcfs", None, None, 3.0, point=2.0),
    ]
    figure = against_load(Results(runs), "mix")
    assert figure is not None
    median, p99 = figure.axes
    assert median.get_yscale() == "log"
    strict, fcfs = COLOURS["strict"], COLOURS["fcfs"]
    assert lines(median)[strict] == ([1.0, 2.0], [pytest.approx(0.3), pytest.approx(0.5)])
    assert lines(p99)[strict][1][0] == pytest.approx(0.496)
    assert lines(median)[fcfs] == ([1.0], [pytest.approx(1.0)]), "most were never answered"
    assert "fcfs (beyond: never)" in words(figure)
    assert "2 rounds" in words(figure)


def test_one_load_is_no_curve() -> None:
    assert against_load(Results([waits("strict", 0.1, point=1.0)]), "mix") is None
    assert against_load(Results([waits("strict", 0.1)]), "mix") is None


def test_the_distribution_never_reaches_100_where_requests_were_not_answered() -> None:
    figure = distribution(
        Results([waits("strict", 0.2, 0.1, 0.4, 0.3), waits("fcfs", 0.5, None)]),
        "mix",
        ttfts,
        "title",
        "label",
    )
    assert figure is not None
    drawn = lines(figure.axes[0])
    xs, shares = drawn[COLOURS["strict"]]
    assert xs == [pytest.approx(x) for x in (0.1, 0.1, 0.2, 0.3, 0.4)]
    assert shares == [0, 25, 50, 75, 100]
    assert drawn[COLOURS["fcfs"]][1] == [0, 50]
    assert "strict (4)" in words(figure) and "fcfs (2)" in words(figure)


def test_response_times_are_drawn_where_they_are_known() -> None:
    silent = Results([waits("fcfs", 0.1)])
    assert distribution(silent, "mix", responses, "title", "label") is None
    exact = Results([waits("fcfs", 0.1), waits("strict", 0.1, responses={"LS": [0.004, 0.002]})])
    figure = distribution(exact, "mix", responses, "title", "label")
    assert figure is not None
    assert lines(figure.axes[0]) == {COLOURS["strict"]: ([0.002, 0.002, 0.004], [0, 50, 100])}


def test_the_highest_load_that_all_were_measured_at_is_shown() -> None:
    runs = [waits(s, 0.1, point=p) for s in ("strict", "fcfs") for p in (1.0, 2.0)]
    runs.append(waits("strict", 9.0, point=3.0))
    figure = distribution(Results(runs), "mix", ttfts, "title", "label")
    assert figure is not None
    assert "mix, 2 requests/s: title" in words(figure)


def test_progress_ends_at_the_tokens_of_the_tables() -> None:
    work = [request(i, 2.0 * i, 1.5, (500.0,) * 3, kind=BE, priority=10) for i in range(12)]
    run = record("strict", *work)
    times, totals = tokens_by(run)
    assert totals[-1] == tokens_in_window(run, BE) > 0
    assert totals == sorted(totals) and times == sorted(times)
    assert (times[0], times[-1]) == (0.0, 10.0)
    figure = be_progress(Results([run, waits("ls-alone", 0.1)]), "mix")
    assert figure is not None
    assert f"strict: {totals[-1] / 10:.0f} tok/s" in words(figure)
    assert "ls-alone" not in words(figure)


def test_failed_runs_are_left_out() -> None:
    broken = record("strict", status="failed", cause="it did not start")
    results = Results([broken])
    assert distribution(results, "mix", ttfts, "title", "label") is None
    assert be_progress(results, "mix") is None


@given(st.lists(st.floats(0, 1), max_size=12), st.floats(0.01, 0.08))
def test_names_do_not_overlap(values: Sequence[float], least: float) -> None:
    moved = apart(sorted(values), least)
    assert len(moved) == len(values)
    for low, high in pairwise(moved):
        assert high - low >= least * (1 - 1e-6)
    for value, its in zip(sorted(values), moved, strict=True):
        assert abs(value - its) <= least * len(values)


def test_every_system_has_a_colour_of_its_own() -> None:
    from benchmarks.systems import SYSTEMS

    strangers = [*SYSTEMS, "sglang", "fork"]
    together = [s for s in strangers if "alone" not in s]
    assert len({colour(s, strangers) for s in together}) == len(together)


def test_words() -> None:
    assert [duration(s) for s in (0.0005, 0.02, 1.5, 20)] == ["0.5 ms", "20 ms", "1.5 s", "20 s"]
    assert wrapped("one two three", 8) == "one two\nthree"


# -- a timeline -------------------------------------------------------------------------------


@pytest.fixture
def document(tmp_path: Path) -> dict[str, object]:
    """Written by the engine's own log: one step, suspended once, and one nested in it."""
    from vllm_qllm.config import PriorityConfig
    from vllm_qllm.engine.step import Step
    from vllm_qllm.execution.protocol import EXPERTS, Place
    from vllm_qllm.timeline.document import document as read
    from vllm_qllm.timeline.log import open_log

    path = tmp_path / "timeline.0"
    log = open_log(PriorityConfig(timeline=1024), path)
    assert log is not None
    slow = Step(1, 1, 1, True, None, False, {"s": 2000})
    fast = Step(2, 0, 0, False, None, False, {"f": 64})
    a = log.request_arrived(1, "s", 2000, 64, 100.0)
    log.step_started(slow, 0, 100.1)
    log.request_started(1, a, slow, 0.1, 100.1)
    b = log.request_arrived(0, "f", 64, 1, 100.5)
    slow.yield_point = 9
    log.step_suspended(slow, 0, Place(3, EXPERTS), 0, 100.51)
    log.step_started(fast, 1, 100.52)
    log.request_started(0, b, fast, 0.02, 100.52)
    log.request_first_token(0, b, 100.7)
    log.request_finished(0, b, 1, "length", 100.7)
    log.step_finished(fast, 1, 100.7)
    log.step_resumed(slow, 0, 100.71)
    log.step_finished(slow, 0, 101.2)
    log.request_first_token(1, a, 101.2)
    log.close()
    return read(str(tmp_path / "metrics"), 1e6)


def test_a_timeline_shows_steps_layers_and_requests(document: dict[str, object]) -> None:
    figure = timeline(document, seconds=2.0, start=100.0)
    above, layers, below = figure.axes
    bars = [(p.get_x(), p.get_y(), p.get_width()) for p in above.patches]  # type: ignore[attr-defined]
    for x, depth, width in ((0.1, 0, 1.1), (0.51, 0, 0.2), (0.52, 1, 0.18)):
        assert any(
            math.isclose(b[0], x, abs_tol=1e-6)
            and round(b[1]) == depth
            and math.isclose(b[2], width, abs_tol=1e-6)
            for b in bars
        ), (x, depth, width)
    assert any(list(line.get_ydata()) == [3, 3] for line in layers.get_lines())
    assert "1 suspension, 1 nested step" in words(figure)
    drawn = sorted(to_hex(patch.get_facecolor()) for patch in below.patches)
    # Each waits, has a prefill and decodes.
    assert drawn == [c.lower() for c in (*CLASSES[:1] * 2, MARK, MARK, *CLASSES[1:2] * 2)]


def test_a_strip_shows_urgent_steps_above_the_suspended_one(document: dict[str, object]) -> None:
    (axes,) = strip(document, seconds=2.0, start=100.0).axes
    bars = {
        (round(p.get_x(), 2), round(p.get_y() + 0.4), round(p.get_width(), 2), bool(p.get_hatch()))
        for p in axes.patches  # type: ignore[attr-defined]
    }
    assert bars == {(0.1, 0, 1.1, False), (0.51, 0, 0.2, True), (0.52, 1, 0.18, False)}


def test_the_busiest_stretch_is_drawn(document: dict[str, object]) -> None:
    engine = document["engines"][0]  # type: ignore[index]
    assert busiest(engine, 1.0) == pytest.approx(100.41)


def test_a_timeline_is_drawn_by_the_command(
    document: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps(document))
    out = tmp_path / "out"
    assert main(["--timeline", str(path), "-o", str(out), "--format", "png"]) == 0
    for name in ("run", "run-strip"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"format": "other"}'])
def test_what_is_no_timeline_is_said(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.json"
    path.write_text(content)
    assert main(["--timeline", str(path), "-o", str(tmp_path)]) == 1
    assert str(path) in capsys.readouterr().err


def test_an_empty_timeline_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.json"
    path.write_text('{"format": "vllm-qllm timeline", "engines": []}')
    assert main(["--timeline", str(path), "-o", str(tmp_path)]) == 1
    assert "nothing happened" in capsys.readouterr().err


def test_bad_results_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.json").write_text("{}")
    assert main([str(tmp_path), "-o", str(tmp_path / "out")]) == 1
    assert "x.json: format None" in capsys.readouterr().err
    save(waits("strict", 0.1), tmp_path / "good")
    assert main([str(tmp_path / "good"), "-o", str(tmp_path / "out"), "--format", "png"]) == 0
