# SPDX-License-Identifier: Apache-2.0
"""Draws pictures from result files and timelines.

    python -m benchmarks.pictures RESULTS ... [-o FOLDER] [--format svg|png]
    python -m benchmarks.pictures --timeline FILE [--seconds 3] [-o FOLDER]

RESULTS are files of ``benchmarks.run``, or folders of them. A timeline is what
``python -m vllm_qllm.timeline --raw`` wrote. Nothing is drawn of what was not measured; what is
left out, and why, is printed.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from benchmarks.measurement.conditions import ROOT
from benchmarks.pictures import style
from benchmarks.pictures.latency import against_load, distribution, responses, ttfts
from benchmarks.pictures.progress import be_progress
from benchmarks.pictures.steps import timeline
from benchmarks.pictures.strip import strip
from benchmarks.record.groups import Results
from benchmarks.record.record import BadRecord, load_all

FORMATS = ("svg", "png")
PICTURES = ROOT / "benchmarks" / "results" / "pictures"


def of_scenario(results: Results, scenario: str) -> Iterator[tuple[str, Figure | None, str]]:
    """Name of each picture, the picture, and why there is none."""
    yield "load", against_load(results, scenario), "fewer than two loads were measured"
    what, label = "how long urgent requests wait", "LS time to first token"
    found = distribution(results, scenario, ttfts, what, label)
    yield "ttft", found, "no urgent request was measured"
    what = "from arrival in the engine to the first work"
    found = distribution(results, scenario, responses, what, "LS response time")
    yield "response", found, "no engine recorded response times"
    yield "progress", be_progress(results, scenario), "no best-effort request was measured"


def draw(paths: Sequence[Path], out: Path, suffix: str) -> Iterator[str]:
    """Draw everything that these files allow; what to tell the person who asked."""
    results = Results(load_all(paths))
    for scenario in results.scenarios:
        for name, figure, why in of_scenario(results, scenario):
            if figure is None:
                yield f"{scenario}: no picture of {name}: {why}"
            else:
                yield str(style.save(figure, out / f"{scenario}-{name}.{suffix}"))


def draw_timeline(path: Path, out: Path, suffix: str, seconds: float) -> Iterator[str]:
    """Draw one timeline, whole and as a strip. Raises ValueError for a file that is none."""
    try:
        document: Any = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if not isinstance(document, dict) or document.get("format") != "vllm-qllm timeline":
        raise ValueError(f"{path} is no timeline; python -m vllm_qllm.timeline --raw writes one")
    figure = timeline(document, seconds, note=path.stem)
    yield str(style.save(figure, out / f"{path.stem}.{suffix}"))
    yield str(style.save(strip(document, seconds), out / f"{path.stem}-strip.{suffix}"))


def main(words: Sequence[str] | None = None) -> int:
    """Draw; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pictures", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("results", nargs="*", type=Path, help="result files, or folders of them")
    parser.add_argument("--timeline", type=Path, action="append", default=[], metavar="FILE")
    parser.add_argument("--seconds", type=float, default=3.0, help="of a timeline (default: 3)")
    parser.add_argument("-o", "--out", type=Path, help="folder for them", default=PICTURES)
    parser.add_argument("--format", choices=FORMATS, default="svg")
    asked = parser.parse_args(words)
    if not asked.results and not asked.timeline:
        parser.error("nothing to draw: give result files or --timeline FILE")
    try:
        with matplotlib.rc_context(dict(style.SETTINGS)):
            for path in asked.timeline:
                for line in draw_timeline(path, asked.out, asked.format, asked.seconds):
                    print(line)
            if asked.results:
                for line in draw(asked.results, asked.out, asked.format):
                    print(line)
    except (BadRecord, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
