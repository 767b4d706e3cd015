"""Measures scenarios under systems, each alone on the machine, and writes a file for each run.

    python -m benchmarks.run SCENARIO ... [--systems NAME ...] [--rounds N] [--seconds S]
    python -m benchmarks.run all              the whole matrix; hours
    python -m benchmarks.run all --quick      something of everything; ten minutes

Interrupt it at will: what is finished is kept, and is not run again under the same conditions, from
the same source. A run that failed is written with its cause, and is tried again the next time.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import record, systems
from benchmarks.conditions import ROOT, conditions, sentence
from benchmarks.equality import Sample
from benchmarks.host import Host
from benchmarks.load.drive import Times
from benchmarks.load.traces import Traces
from benchmarks.matrix import TRACES, Cell, Setup, cells, finished
from benchmarks.measure import measure
from benchmarks.models import SHAPES, make
from benchmarks.progress import Progress
from benchmarks.record import BE, KINDS, LS, Record
from benchmarks.scenarios import SCENARIOS
from benchmarks.scenarios.scenario import COMMON, USUAL
from benchmarks.server import ServerDied, exit_on_signals
from benchmarks.summary import number, of_class
from benchmarks.tables import render

RUNS = ROOT / "benchmarks" / ".runs"
LOGS = ROOT / "benchmarks" / ".logs"
QUICK = ("ls-alone", "fcfs", "strict")
QUICK_TIMES = Times(warm_up=2.0, seconds=8.0, drain=4.0)
QUICK_SAMPLE = Sample(((LS, 2), (BE, 1)), patience=1.0)
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
                done = measure(cell, setup, host.server(cell), facts, progress.say)
                trouble = host.trouble()
            except ServerDied as error:
                done, trouble = cell.blank(setup, facts), str(error)
            if trouble:
                done = record.failed(done, trouble)
            record.save(done, out)
            progress.done(f"{head}: {outcome(done)}")
    return paths


def trace_option(text: str) -> tuple[str, Path]:
    """``LS=FILE``."""
    kind, _, path = text.partition("=")
    if kind not in KINDS or not path:
        raise argparse.ArgumentTypeError(f"{text!r} is not LS=FILE or BE=FILE")
    return kind, Path(path)


def seconds_option(text: str) -> float:
    """A length of time."""
    value = float(text)
    if not 0 < value < 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0 and below 86400 seconds")
    return value


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    names = f"all, {', '.join(SCENARIOS)}"
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=names)
    parser.add_argument("--list", action="store_true", help="say what there is, and end")
    parser.add_argument("--systems", nargs="+", metavar="NAME", help=", ".join(systems.SYSTEMS))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="a small model, few seconds each")
    parser.add_argument("--seconds", type=seconds_option, help="window of a run")
    parser.add_argument("--warm-up", type=seconds_option, help="seconds of load before it")
    parser.add_argument("--drain", type=seconds_option, help="longest wait for late answers")
    parser.add_argument("--model", choices=SHAPES, help="mixtral-747m; quick: small-mixtral")
    parser.add_argument("--models", type=Path, default=ROOT / "benchmarks" / ".models")
    parser.add_argument("--eager", action="store_true", help="vLLM's --enforce-eager")
    parser.add_argument("--traces", type=Path, default=TRACES, help="folder of trace files")
    parser.add_argument(
        "--trace",
        type=trace_option,
        action="append",
        default=[],
        metavar="CLASS=FILE",
        help="replay this file (Azure's .csv, Mooncake's .jsonl) for LS or BE",
    )
    parser.add_argument("--url", help="measure the one system named at this base URL, which runs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, default=RUNS, help="folder of the results (%(default)s)"
    )
    arguments = parser.parse_args(words)
    chosen = [n for word in arguments.scenarios for n in (SCENARIOS if word == "all" else (word,))]
    for name in chosen:
        if name not in SCENARIOS:
            parser.error(f"no scenario named {name!r}; there are: {names}")
    for name in arguments.systems or ():
        if name not in systems.SYSTEMS:
            parser.error(f"no system named {name!r}; there are: {', '.join(systems.SYSTEMS)}")
    if not chosen and not arguments.list:
        parser.error(f"name a scenario: {names}")
    if arguments.rounds < 1:
        parser.error(f"--rounds is {arguments.rounds}; it must be at least 1")
    if arguments.url and len(arguments.systems or ()) != 1:
        parser.error("--url serves one system: name it with --systems")
    arguments.scenarios = list(dict.fromkeys(chosen))
    return arguments


def listing() -> str:
    """What there is to be run."""
    lines = ["scenarios:"]
    for scenario in SCENARIOS.values():
        lines.append(f"  {scenario.name:20}{scenario.question}")
        lines.append(f"  {'':20}{' '.join(scenario.systems)}")
    lines.append("systems:")
    lines += [f"  {name:20}{system.about}" for name, system in systems.SYSTEMS.items()]
    return "\n".join(lines)


def times_of(arguments: argparse.Namespace) -> Times | None:
    """In place of the scenarios' own; None to leave them."""
    given = (arguments.warm_up, arguments.seconds, arguments.drain)
    if not arguments.quick and given == (None, None, None):
        return None
    base = QUICK_TIMES if arguments.quick else USUAL
    usual = (base.warm_up, base.seconds, base.drain)
    return Times(*(g if g is not None else u for g, u in zip(given, usual, strict=True)))


def main(words: Sequence[str] | None = None) -> int:
    arguments = parse(words)
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
        sample=QUICK_SAMPLE if quick else Sample(),
        url=arguments.url,
    )
    plan = cells(
        [SCENARIOS[name] for name in arguments.scenarios],
        arguments.systems or (QUICK if quick else None),
        arguments.rounds,
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
