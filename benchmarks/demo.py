# SPDX-License-Identifier: Apache-2.0
"""``make demo``: the same two loads on one server, three ways; in a few minutes, on two cores.

    python -m benchmarks.demo [--seconds N] [--systems NAME ...]

Batch jobs (best effort) keep the server busy with 2000-token prompts; people (latency sensitive)
ask something short about once a second. Exits with 1 when people waited no less under ``strict``
than under each of the stock systems, and with 2 when something failed.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.load.arrivals import Poisson
from benchmarks.load.drive import Times
from benchmarks.load.lengths import Fixed
from benchmarks.load.streams import ClosedLoop, open_loop
from benchmarks.measurement.conditions import ROOT, conditions, sentence
from benchmarks.measurement.equality import Sample
from benchmarks.measurement.matrix import Setup, cells
from benchmarks.measurement.measure import measure
from benchmarks.measurement.progress import Progress
from benchmarks.models.model import make
from benchmarks.record.record import BE, KINDS, LS, Record
from benchmarks.record.summary import number, of_class, together
from benchmarks.report.markdown import table
from benchmarks.scenarios.scenario import COMMON, Scenario, Variant
from benchmarks.systems import SYSTEMS
from benchmarks.systems.host import Host
from benchmarks.systems.server import ServerDied, exit_on_signals, reported

MODEL = "small-mixtral"
STOCK = ("fcfs", "priority-2048")
OURS = "strict"
DEMO = Scenario(
    name="demo",
    question="What do people wait for beside batch jobs?",
    variants=(
        Variant((open_loop(LS, Poisson(0.8), Fixed(64, 16)), ClosedLoop(BE, 6, Fixed(2000, 16)))),
    ),
    systems=(*STOCK, OURS),
)
LOAD = "LS: Poisson 0.8/s, 64 tokens in, 16 out; BE: 6 clients, 2000 in, 16 out"
WARM_UP, DRAIN = 3.0, 15.0
# Start-up and shutdown of one server, for the estimate of the time left.
SERVER_SECONDS = 25.0


def demo(names: list[str], seconds: float, models: Path) -> list[Record]:
    """Measure each system; records in the same order. Raises ServerDied."""
    began = time.monotonic()
    model = make(MODEL, models / MODEL)
    progress, facts = Progress(), conditions()
    progress.done(f"model {MODEL} is ready ({time.monotonic() - began:.0f} s)")
    # Eager: compiling would take longer than the whole demo.
    times = Times(WARM_UP, seconds, DRAIN)
    setup = Setup(model, (*COMMON, "--enforce-eager"), times=times, sample=Sample(()))
    records = []
    with (
        tempfile.TemporaryDirectory(prefix="qllm-demo-") as logs,
        Host(setup, Path(logs), progress) as host,
    ):
        for i, cell in enumerate(cells([DEMO], names)):
            left = (len(names) - i) * (SERVER_SECONDS + WARM_UP + seconds)
            head = f"[{i + 1}/{len(names)}] {cell.name}"
            progress.stage(head, left)
            done = measure(cell, setup, host.server(cell), facts, progress.say)
            if trouble := host.trouble():
                raise ServerDied(trouble)
            records.append(done)
            progress.done(f"{head}: LS waited {number(of_class(done, LS).ttft.p50)} s at p50")
    return records


def report(records: list[Record]) -> str:
    """The table for a person."""
    rows = []
    for each in records:
        ls, be = of_class(each, LS), of_class(each, BE)
        values = ls.ttft.p50, ls.ttft.p99, ls.tpot.p50, be.tokens_per_second, together(each)
        rows.append([each.system, str(ls.requests), *map(number, values)])
    header = ["system", "LS requests", "LS TTFT p50 s", "p99 s", "LS TPOT p50 s"]
    return table([*header, "BE tok/s", "LS+BE tok/s"], rows)


def verdict(records: list[Record]) -> tuple[bool, str]:
    """Whether strict beat both stock systems, and a sentence that says what happened."""
    waited = {r.system: of_class(r, LS).ttft.p50 for r in records}
    speed = {r.system: together(r) for r in records}
    known = {name: seconds for name, seconds in waited.items() if seconds is not None}
    if any(name not in known for name in (*STOCK, OURS)):
        return False, "no comparison: a system is missing or answered no LS request"
    best = min(STOCK, key=lambda name: known[name])
    if known[OURS] >= known[best]:
        return False, (
            f"LS requests waited {number(known[OURS])} s under {OURS}, no less than the "
            f"{number(known[best])} s of stock {best}"
        )
    ratio, kept = known[best] / known[OURS], speed[OURS] / speed[best]
    return True, (
        f"LS requests waited {known[OURS]:.2f} s for their first token under {OURS}: {ratio:.1f} "
        f"times less than under {best}, the better stock system ({known[best]:.2f} s), with "
        f"{kept:.0%} of its throughput"
    )


def failures(records: list[Record]) -> list[str]:
    """Requests that failed, by system and cause."""
    return [
        f"{each.system}: {count} x {kind}: {error}"
        for each in records
        for kind in KINDS
        for error, count in of_class(each, kind).errors.items()
    ]


@reported
def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seconds", type=float, default=20.0, help="window a system (20)")
    parser.add_argument("--systems", nargs="+", default=[*STOCK, OURS], choices=SYSTEMS)
    parser.add_argument("--models", type=Path, default=ROOT / "benchmarks" / ".models")
    arguments = parser.parse_args()
    exit_on_signals()
    records = demo(arguments.systems, arguments.seconds, arguments.models)
    good, what = verdict(records)
    print(f"\n{sentence(conditions())}")
    print(f"{MODEL}, eager; {LOAD}; {arguments.seconds:.0f} s each\n")
    print(report(records))
    print(f"\n{what}")
    for line in failures(records):
        print(line, file=sys.stderr)
    if failures(records):
        return 2
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
