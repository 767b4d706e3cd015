# SPDX-License-Identifier: Apache-2.0
"""Measures scenarios under systems, each alone on the machine, and writes a file for each run.

    python -m benchmarks.run SCENARIO ... [--systems NAME ...] [--rounds N] [--seconds S]
    python -m benchmarks.run all              the whole matrix; hours
    python -m benchmarks.run all --quick      something of everything; ten minutes

Interrupt it at will: what is finished is kept, and is not run again under the same conditions, from
the same source. A run that failed is written with its cause, and is tried again the next time.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.load.traces import BadTrace, Traces
from benchmarks.measurement.conditions import ROOT, conditions, sentence
from benchmarks.measurement.matrix import Cell, Setup, cells, finished
from benchmarks.measurement.measure import measure
from benchmarks.measurement.options import QUICK, listing, parse, sample_of, times_of
from benchmarks.measurement.progress import Progress
from benchmarks.models.model import make
from benchmarks.record import record
from benchmarks.record.record import KINDS, Record
from benchmarks.record.summary import number, of_class
from benchmarks.report.report import render
from benchmarks.scenarios import SCENARIOS
from benchmarks.scenarios.scenario import COMMON
from benchmarks.systems.host import Host
from benchmarks.systems.server import ServerDied, exit_on_signals

LOGS = ROOT / "benchmarks" / ".logs"
# For the time left: starting and ending a server, and what follows a window.
SERVER_SECONDS = 50.0


def expected(todo: Sequence[Cell], setup: Setup) -> float:
    """Seconds that these cells will take."""
    total, before = 0.0, None
    for cell in todo:
        times, arguments = cell.times(setup), cell.arguments(setup)
        total += times.warm_up + times.seconds + times.drain / 4 + setup.sample.patience
        if setup.url is None and arguments != before:
            total += SERVER_SECONDS / (2 if "--enforce-eager" in arguments else 1)
        before = arguments
    return total


def outcome(done: Record) -> str:
    """One line about a run."""
    if done.status != "ok":
        return f"failed: {(done.cause or '').splitlines()[0]}"
    parts = []
    for kind in KINDS:
        found = of_class(done, kind)
        if found.requests:
            text = f"{kind} TTFT p50 {number(found.ttft.p50)} s, {found.requests} requests"
            text += f", {found.failed} failed" if found.failed else ""
            text += f", {found.unanswered} unanswered" if found.unanswered else ""
            parts.append(text)
    return "; ".join(parts) or "no requests"


def run(
    plan: Sequence[Cell], setup: Setup, out: Path, progress: Progress, logs: Path = LOGS
) -> list[Path]:
    """Measure what is not on disk below ``out`` yet; the files of all cells, in order."""
    facts = conditions()
    paths = [record.path_of(out, cell.blank(setup, facts)) for cell in plan]
    todo = [
        cell
        for cell, path in zip(plan, paths, strict=True)
        if not finished(path, cell.key(setup, facts))
    ]
    if len(todo) < len(plan):
        progress.done(f"{len(plan) - len(todo)} of {len(plan)} runs are there already")
    with Host(setup, logs, progress) as host:
        for i, cell in enumerate(todo):
            head = f"[{i + 1}/{len(todo)}] {cell}"
            progress.stage(head, expected(todo[i:], setup))
            # Again for every run: whoever edits meanwhile shall not be told wrong.
            facts = conditions()
            try:
                cell.check(setup)  # before a server is started for nothing
                done = measure(cell, setup, host.server(cell), facts, progress.say)
                trouble = host.trouble()
            except (BadTrace, ServerDied) as error:
                done, trouble = cell.blank(setup, facts), str(error)
            if trouble:
                done = record.failed(done, trouble)
            record.save(done, out)
            progress.done(f"{head}: {outcome(done)}")
    return paths


def main(words: Sequence[str] | None = None) -> int:
    arguments = parse(__doc__, words)
    if arguments.list:
        print(listing())
        return 0
    exit_on_signals()
    quick = arguments.quick
    name = arguments.model or ("small-mixtral" if quick else "mixtral-747m")
    setup = Setup(
        model=make(name, arguments.models / name),
        # Quick: compiling would take longer than a run.
        common=(*COMMON, *(("--enforce-eager",) if quick or arguments.eager else ())),
        seed=arguments.seed,
        times=times_of(arguments),
        files=Traces(arguments.traces, dict(arguments.trace)),
        sample=sample_of(arguments),
        url=arguments.url,
        timelines=arguments.timelines,
    )
    plan = cells(
        [SCENARIOS[name] for name in arguments.scenarios],
        arguments.systems or (QUICK if quick else None),
        arguments.rounds,
        share=arguments.share,
        quick=quick,
    )
    print(sentence(conditions()), file=sys.stderr)
    began = time.monotonic()
    out = arguments.out / "quick" if quick else arguments.out
    try:
        paths = run(plan, setup, out, Progress())
    except KeyboardInterrupt:
        print("\nstopped; finished runs are kept, and no server is left running", file=sys.stderr)
        return 130
    records = [record.load(path) for path in paths]
    print(render(records))
    minutes = (time.monotonic() - began) / 60
    print(f"{len(records)} runs in {minutes:.1f} minutes; results: {out}", file=sys.stderr)
    bad = [r for r in records if r.status != "ok"]
    for each in bad:
        print(f"failed: {each.scenario}, {each.system}: {each.cause}", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
