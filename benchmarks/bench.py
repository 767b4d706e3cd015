"""`make bench`: every system under the same mix, each alone on the machine, one after another.

    python -m benchmarks.bench [--quick] [--rounds N] [--systems NAME ...]
    python -m benchmarks.bench --overhead [--pairs N]

Rounds go through all systems in turn, so that a machine whose speed drifts treats them alike. Each
finished (system, round) is a file under benchmarks/results/, and is not run again for the same
conditions and source; --fresh runs everything again.
"""

import argparse
import hashlib
import json
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.conditions import ROOT, conditions, sentence
from benchmarks.load import BE, LS, Load
from benchmarks.measure import Plan, failures, measure
from benchmarks.models import make
from benchmarks.overhead import OFF, ON, overhead
from benchmarks.overhead import report as overhead_report
from benchmarks.progress import Progress
from benchmarks.report import number, table
from benchmarks.server import ServerDied, exit_on_signals
from benchmarks.systems import SYSTEMS

RESULTS = ROOT / "benchmarks" / "results"
LOGS = ROOT / "benchmarks" / ".logs"
# Starting a server (compiled; the first time takes longer) and ending it, for the time left.
SERVER_SECONDS = 60.0
QUICK = ("ls-alone", "fcfs", "priority-512", "step", "strict")

Result = dict[str, Any]


def folder(plan: Plan, facts: dict[str, Any]) -> Path:
    """Where results under these conditions belong."""
    same = {k: v for k, v in facts.items() if k != "commit"}
    key = json.dumps([str(plan.model.name), {**vars(plan), "model": None}, same], default=vars)
    return RESULTS / hashlib.sha256(key.encode()).hexdigest()[:12]


def run(
    plan: Plan, names: list[str], rounds: int, out: Path, facts: dict[str, Any]
) -> list[Result]:
    """All rounds of all systems, those on disk not again. A failing system is reported only."""
    todo = [(n, r) for r in range(rounds) for n in names if not (out / f"{n}-{r}.json").exists()]
    progress = Progress(len(todo) * (SERVER_SECONDS + plan.warm_up + plan.seconds))
    for i, (name, round_) in enumerate(todo, 1):
        progress.stage(f"[{i}/{len(todo)}] {name}, round {round_ + 1}")
        try:
            result = measure(name, SYSTEMS[name], plan, LOGS, progress)
        except ServerDied as error:
            progress.done(f"{name}: {error}")
            continue
        result |= {"round": round_, "conditions": facts, "at": time.strftime("%F %T%z")}
        out.mkdir(parents=True, exist_ok=True)
        (out / f"{name}-{round_}.json").write_text(json.dumps(result, indent=1) + "\n")
        took = number(result[LS]["ttft"]["p50"])
        outcome = failures(result) or "all answered"
        progress.done(f"{progress.prefix}: LS TTFT p50 {took} s; {outcome}")
    every = [out / f"{n}-{r}.json" for r in range(rounds) for n in names]
    return [json.loads(path.read_text()) for path in every if path.exists()]


def middle(results: list[Result], read: Callable[[Result], float | None]) -> float | None:
    """The median over rounds."""
    values = [value for value in map(read, results) if value is not None]
    return statistics.median(values) if values else None


def report(results: list[Result], names: list[str]) -> str:
    """The table: seconds and tokens per second, and in brackets the ratio to LS alone."""
    groups = {n: [r for r in results if r["system"] == n] for n in names}
    columns: list[tuple[str, str, Callable[[Result], float | None]]] = [
        ("TTFT p50", "ratio", lambda r: r[LS]["ttft"]["p50"]),
        ("p99", "ratio", lambda r: r[LS]["ttft"]["p99"]),
        ("TPOT p50", "ratio", lambda r: r[LS]["tpot"]["p50"]),
        ("gap p99", "", lambda r: r[LS]["gap"]["p99"]),
        ("e2e p50", "ratio", lambda r: r[LS]["e2e"]["p50"]),
        ("BE TTFT p50", "", lambda r: r[BE]["ttft"]["p50"]),
        ("BE e2e p50", "", lambda r: r[BE]["e2e"]["p50"]),
        ("BE tok/s", "", lambda r: r[BE]["tokens_per_second"]),
        ("LS+BE tok/s", "", lambda r: r["tokens_per_second"]),
    ]
    rows = []
    for name, group in groups.items():
        if not group:
            rows.append([name, "failed", *["" for _ in columns]])
            continue
        row = [name, "/".join(str(r[LS]["requests"]) for r in group)]
        for _, kind, read in columns:
            value, alone = middle(group, read), middle(groups.get("ls-alone", []), read)
            text = number(value)
            if kind and value is not None and alone and name != "ls-alone":
                text += f" ({value / alone:.2f}x)"
            row.append(text)
        rows.append(row)
    return table(["system", "LS requests", *[c[0] for c in columns]], rows)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--quick", action="store_true", help="fewer systems, 30 s each")
    parser.add_argument(
        "--overhead", action="store_true", help="cost with nobody waiting, in pairs"
    )
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--sides", nargs=2, choices=SYSTEMS, default=(OFF, ON), help="what to pair")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS)
    parser.add_argument("--seconds", type=float, help="window a system (75; quick: 30)")
    parser.add_argument("--warm-up", type=float, default=15.0, help="seconds of load before it")
    parser.add_argument("--drain", type=float, default=60.0, help="wait for late LS answers")
    parser.add_argument("--model", default="mixtral-747m")
    parser.add_argument("--models", type=Path, default=ROOT / "benchmarks" / ".models")
    parser.add_argument("--eager", action="store_true", help="vLLM's --enforce-eager")
    parser.add_argument("--fresh", action="store_true", help="reuse no result")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> int:
    arguments = parse()
    exit_on_signals()
    facts = conditions()
    seconds = arguments.seconds or (30.0 if arguments.quick else 75.0)
    model = make(arguments.model, arguments.models / arguments.model)
    plan = Plan(model, Load(seed=arguments.seed), arguments.warm_up, seconds, arguments.drain)
    if arguments.eager:
        plan = Plan(**{**vars(plan), "common": (*plan.common, "--enforce-eager")})
    print(sentence(facts), file=sys.stderr)
    out = folder(plan, facts)
    try:
        if arguments.overhead:
            result = overhead(plan, arguments.pairs, LOGS, Progress(), tuple(arguments.sides))
            out.mkdir(parents=True, exist_ok=True)
            result |= {"conditions": facts, "at": time.strftime("%F %T%z")}
            (out / "overhead.json").write_text(json.dumps(result, indent=1) + "\n")
            print(f"\n{sentence(facts)}\n{arguments.model}\n{overhead_report(result)}")
            return 0
        names = arguments.systems or list(QUICK if arguments.quick else SYSTEMS)
        if arguments.fresh:
            shutil.rmtree(out, ignore_errors=True)
        results = run(plan, names, arguments.rounds, out, facts)
    except (ServerDied, RuntimeError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; finished runs are kept, and no server is left running", file=sys.stderr)
        return 130
    load = plan.load
    print(f"\n{sentence(facts)}")
    print(
        f"{arguments.model}, {'eager' if arguments.eager else 'compiled'}, prefix caching off; "
        f"LS: Poisson {load.ls_rate}/s, {load.ls_prompt} tokens in, {load.ls_output} out; "
        f"BE: {load.be_clients} clients, {load.be_prompt} in, {load.be_output} out; "
        f"{seconds:.0f} s after {arguments.warm_up:.0f} s of warm-up, rounds: {arguments.rounds} "
        "(medians); LS latencies in seconds, ratios to ls-alone\n"
    )
    print(report(results, names))
    bad = {f"{r['system']}, round {r['round'] + 1}": failures(r) for r in results if failures(r)}
    for name, what in bad.items():
        print(f"{name}: {what}")
    print(f"\nresults: {out.relative_to(ROOT)}")
    return 2 if bad or len(results) < len(names) * arguments.rounds else 0


if __name__ == "__main__":
    sys.exit(main())
