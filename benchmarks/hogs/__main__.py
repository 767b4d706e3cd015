# SPDX-License-Identifier: Apache-2.0
"""The worst urgent request alone, and beside single large requests of less urgent work.

    python -m benchmarks.hogs [--hogs NAME ...] [--model NAME] [--arguments ...]

Every 0.2 s a small urgent request is sent to one server, for 4 s alone and for 8 s beside each hog,
and timed from the moment it was due. Exits with 1 when the worst one beside any hog took more than
five times the worst one alone.
"""

import argparse
import shlex
import sys
from pathlib import Path

import msgspec

from benchmarks.hogs.hog import HOGS
from benchmarks.hogs.run import Result, results
from benchmarks.measurement.conditions import ROOT, conditions, sentence
from benchmarks.measurement.options import RUNS
from benchmarks.models.model import SHAPES, make
from benchmarks.report.markdown import table
from benchmarks.systems import SYSTEMS
from benchmarks.systems.server import exit_on_signals, reported
from vllm_qllm.percentile import percentile

SYSTEM = "strict"
ALLOWED = 5.0
LONGEST = ("--max-model-len", "4096")


def shown(seconds: float) -> str:
    """Milliseconds, or a word."""
    return "never" if seconds == float("inf") else f"{1e3 * seconds:.0f}"


def row(result: Result) -> list[str]:
    """A line of the table."""
    middle = percentile(result.beside, 50)
    assert middle is not None
    answers = ", ".join(f"{count} x {what}" for what, count in sorted(result.answers.items()))
    values = [shown(v) for v in (max(result.alone), middle, max(result.beside))]
    return [result.name, *values, f"{result.ratio:.1f}", answers]


@reported
def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hogs", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--hogs", nargs="+", choices=HOGS, default=list(HOGS), metavar="NAME")
    parser.add_argument("--list", action="store_true", help="say what there is, and end")
    parser.add_argument("--system", choices=SYSTEMS, default=SYSTEM)
    parser.add_argument("--model", choices=SHAPES, default="small-mixtral")
    parser.add_argument("--models", type=Path, default=ROOT / "benchmarks" / ".models")
    parser.add_argument("--arguments", type=shlex.split, default=[], help="more of vllm serve")
    parser.add_argument("--out", type=Path, default=RUNS / "hogs.json")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(f"{name:26}{hog.about}" for name, hog in HOGS.items()))
        return 0
    exit_on_signals()
    # Eager: compiling would take longer than the whole.
    options = (*SYSTEMS[arguments.system].arguments, *LONGEST, "--enforce-eager")
    done = []
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    log = arguments.out.with_suffix(".log")
    facts = conditions()
    try:
        model = make(arguments.model, arguments.models / arguments.model)
        for result in results(arguments.hogs, model, (*options, *arguments.arguments), log):
            done.append(result)
            print(" | ".join(row(result)), file=sys.stderr, flush=True)
    finally:
        kept = {"conditions": facts, "model": arguments.model, "results": done}
        arguments.out.write_bytes(msgspec.json.format(msgspec.json.encode(kept), indent=1))
    header = ["beside", "alone worst ms", "p50 ms", "worst ms", "ratio", "the hogs got"]
    print(f"\n{sentence(facts)}\n{arguments.model}, {arguments.system}, eager\n")
    print(table(header, [row(each) for each in done]))
    return int(any(each.ratio > ALLOWED for each in done))


if __name__ == "__main__":
    sys.exit(main())
