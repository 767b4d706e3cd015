# SPDX-License-Identifier: Apache-2.0
"""The command line of ``benchmarks.run``."""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from benchmarks import systems
from benchmarks.load.drive import Times
from benchmarks.measurement.conditions import ROOT
from benchmarks.measurement.equality import Sample
from benchmarks.measurement.matrix import TRACES
from benchmarks.models.model import SHAPES
from benchmarks.record.record import BE, KINDS, LS
from benchmarks.scenarios import SCENARIOS
from benchmarks.scenarios.scenario import USUAL

RUNS = ROOT / "benchmarks" / ".runs"
QUICK = ("ls-alone", "fcfs", "strict")
QUICK_TIMES = Times(warm_up=2.0, seconds=8.0, drain=4.0)
QUICK_SAMPLE = Sample(((LS, 2), (BE, 1)), patience=1.0)


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


def parse(about: str | None, words: Sequence[str] | None = None) -> argparse.Namespace:
    """Options as given; those that make no sense end the program. ``about``: what it does."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=about)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    names = f"all, {', '.join(SCENARIOS)}"
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=names)
    parser.add_argument("--list", action="store_true", help="say what there is, and end")
    parser.add_argument("--systems", nargs="+", metavar="NAME", help=", ".join(systems.SYSTEMS))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--share", type=int, default=1, metavar="N", help="start each server once for N scenarios"
    )
    parser.add_argument("--quick", action="store_true", help="a small model, few seconds each")
    parser.add_argument("--seconds", type=seconds_option, help="window of a run")
    parser.add_argument("--warm-up", type=seconds_option, help="seconds of load before it")
    parser.add_argument("--drain", type=seconds_option, help="longest wait for late answers")
    parser.add_argument(
        "--patience", type=seconds_option, help="seconds for repeating requests to compare tokens"
    )
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
    parser.add_argument(
        "--timelines", type=Path, metavar="FOLDER", help="keep the end of each window, for pictures"
    )
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
    if arguments.share < 1:
        parser.error(f"--share is {arguments.share}; it must be at least 1")
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


def sample_of(arguments: argparse.Namespace) -> Sample:
    """What is repeated after a run, to compare tokens."""
    usual = QUICK_SAMPLE if arguments.quick else Sample()
    if arguments.patience is None:
        return usual
    return dataclasses.replace(usual, patience=arguments.patience)


def times_of(arguments: argparse.Namespace) -> Times | None:
    """In place of the scenarios' own; None to leave them."""
    given = (arguments.warm_up, arguments.seconds, arguments.drain)
    if not arguments.quick and given == (None, None, None):
        return None
    base = QUICK_TIMES if arguments.quick else USUAL
    usual = (base.warm_up, base.seconds, base.drain)
    return Times(*(g if g is not None else u for g, u in zip(given, usual, strict=True)))
