"""`make demo`: the same two loads on one server, three ways; in a few minutes, on two cores.

    python -m benchmarks.demo [--seconds N] [--systems NAME ...]

Batch jobs (best effort) keep the server busy with 2000-token prompts; people (latency sensitive)
ask something short about once a second. Exits with 1 when the people waited no less under `strict`
than under each of the stock systems, and with 2 when something failed.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.conditions import ROOT, conditions, sentence
from benchmarks.load import BE, LS, Load
from benchmarks.measure import Plan, failures, measure
from benchmarks.models import make
from benchmarks.progress import Progress
from benchmarks.report import number, table
from benchmarks.server import ServerDied, exit_on_signals
from benchmarks.systems import SYSTEMS

MODEL = "small-mixtral"
STOCK = ("fcfs", "priority-2048")
OURS = "strict"
LOAD = Load(ls_rate=0.8, ls_prompt=64, ls_output=16, be_clients=6, be_prompt=2000, be_output=16)
WARM_UP = 3.0
DRAIN = 15.0
# Start-up and shutdown of one server, for the estimate of the time left.
SERVER_SECONDS = 25.0


def demo(names: list[str], seconds: float, models: Path) -> list[dict[str, Any]]:
    """Measure each system; results in the same order."""
    began = time.monotonic()
    model = make(MODEL, models / MODEL)
    progress = Progress(len(names) * (SERVER_SECONDS + WARM_UP + seconds))
    progress.done(f"model {MODEL} is ready ({time.monotonic() - began:.0f} s)")
    # Eager: compiling would take longer than the whole demo.
    plan = Plan(model, LOAD, WARM_UP, seconds, DRAIN)
    plan = Plan(**{**vars(plan), "common": (*plan.common, "--enforce-eager")})
    results = []
    with tempfile.TemporaryDirectory(prefix="qllm-demo-") as logs:
        for i, name in enumerate(names, 1):
            progress.stage(f"[{i}/{len(names)}] {name}")
            result = measure(name, SYSTEMS[name], plan, Path(logs), progress)
            results.append(result)
            ttft = number(result[LS]["ttft"]["p50"])
            progress.done(f"[{i}/{len(names)}] {name}: LS waited {ttft} s at the median")
    return results


def report(results: list[dict[str, Any]]) -> str:
    """The table for a person."""
    rows = [
        [
            r["system"],
            str(r[LS]["requests"]),
            number(r[LS]["ttft"]["p50"]),
            number(r[LS]["ttft"]["p99"]),
            number(r[LS]["tpot"]["p50"]),
            number(r[BE]["tokens_per_second"]),
            number(r["tokens_per_second"]),
        ]
        for r in results
    ]
    header = ["system", "LS requests", "LS TTFT p50 s", "p99 s", "LS TPOT p50 s"]
    return table([*header, "BE tok/s", "LS+BE tok/s"], rows)


def verdict(results: list[dict[str, Any]]) -> tuple[bool, str]:
    """Whether strict beat both stock systems, and a sentence that says what happened."""
    waited = {r["system"]: r[LS]["ttft"]["p50"] for r in results}
    speed = {r["system"]: r["tokens_per_second"] for r in results}
    if any(waited.get(name) is None for name in (*STOCK, OURS)):
        return False, "no comparison: a system is missing or answered no LS request"
    best = min(STOCK, key=lambda name: waited[name])
    ratio, kept = waited[best] / waited[OURS], speed[OURS] / speed[best]
    if waited[OURS] >= waited[best]:
        return False, (
            f"LS requests waited {waited[OURS]:.2f} s under {OURS}, no less than the "
            f"{waited[best]:.2f} s of stock {best}"
        )
    return True, (
        f"LS requests waited {waited[OURS]:.2f} s for their first token under {OURS}: {ratio:.1f} "
        f"times less than under {best}, the better stock system ({waited[best]:.2f} s), with "
        f"{kept:.0%} of its throughput"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seconds", type=float, default=20.0, help="window a system (20)")
    parser.add_argument("--systems", nargs="+", default=[*STOCK, OURS], choices=SYSTEMS)
    parser.add_argument("--models", type=Path, default=ROOT / "benchmarks" / ".models")
    arguments = parser.parse_args()
    exit_on_signals()
    try:
        results = demo(arguments.systems, arguments.seconds, arguments.models)
    except ServerDied as error:
        print(f"\n{error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; no server is left running", file=sys.stderr)
        return 130
    good, sentence_ = verdict(results)
    print(f"\n{sentence(conditions())}")
    print(
        f"{MODEL}, eager; LS: Poisson {LOAD.ls_rate}/s, {LOAD.ls_prompt} tokens in, "
        f"{LOAD.ls_output} out; BE: {LOAD.be_clients} clients, {LOAD.be_prompt} in, "
        f"{LOAD.be_output} out; {arguments.seconds:.0f} s each\n"
    )
    print(report(results))
    print(f"\n{sentence_}")
    failed = {r["system"]: failures(r) for r in results if failures(r)}
    for name, what in failed.items():
        print(f"{name}: {what}", file=sys.stderr)
    if any(r[kind]["errors"] for r in results for kind in (LS, BE)):
        return 2
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
