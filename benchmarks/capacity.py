# SPDX-License-Identifier: Apache-2.0
"""The capacity model beside measured runs: what it predicts of each, and how far it is off.

    python -m benchmarks.capacity RESULTS ... [--cost FILE] [--calibrate SYSTEM ...] [-o FILE]

Each run is simulated with the options of its server's command line and its own load: the same
requests at the same times in an open loop, the same clients and lengths in a closed one. Both are
summed up by the same code. Step costs are fitted to the runs of the systems that ``--calibrate``
names, which are marked in the table, since theirs is no prediction; the others are predicted. Runs
whose experts are computed by this package's kernel get the costs of ``be-alone-strict``.
"""

import argparse
import dataclasses
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.record.record import (
    BE,
    KINDS,
    LS,
    OK,
    UNANSWERED,
    BadRecord,
    Record,
    Request,
    load_all,
)
from benchmarks.record.steps import busy_steps, chunked, lone_first_tokens
from benchmarks.record.summary import number, of_class
from vllm_qllm.capacity.cost import Cost
from vllm_qllm.capacity.errors import CapacityError
from vllm_qllm.capacity.fit import Sample, fit
from vllm_qllm.capacity.fleet import Fleet
from vllm_qllm.capacity.report import table
from vllm_qllm.capacity.request import Request as Simulated
from vllm_qllm.capacity.server import Server, from_command
from vllm_qllm.capacity.workload import Clients, Workload

CALIBRATE = ("ls-alone", "be-alone", "be-alone-strict")
WITHIN = 0.15
# What runs do not tell and ``python -m vllm_qllm.capacity measure`` does.
PREEMPTION = ("suspend_s", "nested_s", "resume_s")
# Tokens of steps whose time goes with the weights read, not with arithmetic.
SMALL = 128
SEEDS = 7
METRICS = ("LS TTFT p50", "LS TTFT p99", "LS TPOT p50", "tok/s")


def own_experts(record: Record) -> bool:
    """Whether MoE layers were computed by this package's kernel."""
    server = from_command(record.command, Server())
    return server.scheduling == "classes" and server.priority.yield_points == "expert"


def calibrated(records: Sequence[Record], systems: Sequence[str], **known: Any) -> dict[bool, Cost]:
    """Cost models from the runs of ``systems``: of vLLM's experts, and of this package's (True).

    Raises:
        CapacityError: their runs do not determine one.
    """
    chosen = [r for r in records if r.system in systems and r.status == "ok"]
    costs: dict[bool, Cost] = {}
    for own in (False, True):
        steps: list[Sample] = []
        firsts: list[Sample] = []
        for record in chosen:
            budget = from_command(record.command, Server()).token_budget
            lone = lone_first_tokens(record)
            found = busy_steps(record, budget)
            found += [chunked(s, budget) for s in lone if s.tokens > budget]
            if own_experts(record) != own:
                # Small steps wait for memory under either kernel.
                found = [s for s in found if s.tokens <= SMALL] if own else []
            steps += found
            firsts += [s for s in lone if s.tokens <= SMALL]
        if own and not any(own_experts(r) for r in chosen):
            costs[own] = costs[False]
            continue
        about = {"runs": sorted({f"{r.scenario}/{r.system}/{r.round}" for r in chosen})}
        costs[own] = fit(steps, firsts, about, **known)
    return costs


def workload(record: Record) -> Workload:
    """What arrived in a run, as it arrived."""
    arrivals = []
    clients = []
    for level, kind in enumerate(KINDS):
        mine = sorted(record.of(kind), key=lambda r: r.number)
        if not mine:
            continue
        if record.is_open(kind):
            arrivals += [(r.scheduled, level, r.prompt, r.output) for r in mine]
        else:
            # The first requests of all clients are due at the start.
            start = min(r.scheduled for r in mine)
            number = sum(r.scheduled < start + 0.2 for r in mine)
            lengths = tuple((r.prompt, r.output) for r in mine)
            clients.append(Clients(level, number, lengths, pause_of(record, kind)))
    return Workload(tuple(sorted(arrivals)), tuple(clients), record.ended)


def pause_of(record: Record, kind: str) -> float:
    """Seconds that the clients of a closed loop wait after an answer."""
    for stream in record.plan.get("streams", ()):
        if stream.get("kind") == kind:
            return float(stream.get("pause", 0.0))
    return 0.0


def predicted(record: Record, server: Server, cost: Cost, seed: int) -> Record:
    """The record that the simulation of the same load leaves."""
    found: list[Request] = []

    def ended(request: Simulated, now: float) -> None:
        gaps = request.output - 1
        each = round((now - request.first) / gaps * 1e6) if gaps else 0
        late = now > record.ended
        found.append(
            Request(
                kind=KINDS[request.level],
                number=request.number,
                priority=None,
                prompt=request.prompt,
                output=request.output,
                scheduled=request.sent,
                sent=request.sent,
                first=request.first if request.first <= record.ended else None,
                gaps_us=[each] * gaps,
                end=now,
                outcome=UNANSWERED if late else OK,
            )
        )

    Fleet(server, cost, seed=seed, ended=ended).run(workload(record))
    return dataclasses.replace(record, requests=found)


def metrics(record: Record) -> dict[str, float | None]:
    """What is compared."""
    ls, be = of_class(record, LS), of_class(record, BE)
    values = (ls.ttft.p50, ls.ttft.p99, ls.tpot.p50, ls.tokens_per_second + be.tokens_per_second)
    return dict(zip(METRICS, values, strict=True))


def middle(values: Sequence[float | None]) -> float | None:
    """The median of what there is."""
    there = [v for v in values if v is not None]
    return statistics.median(there) if there else None


def compare(
    records: Sequence[Record], costs: dict[bool, Cost], base: Server
) -> list[dict[str, Any]]:
    """One entry a group of rounds: measured and predicted medians, and the relative errors."""
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        point = record.point.value if record.point else None
        groups.setdefault((record.scenario, point, record.system), []).append(record)
    rows = []
    for (scenario, point, system), group in groups.items():
        row = {"scenario": scenario, "point": point, "system": system, "rounds": len(group)}
        good = [r for r in group if r.status == "ok" and r.requests]
        if not good:
            rows.append(row | {"cause": group[0].cause or "no requests"})
            continue
        measured = [metrics(r) for r in good]
        simulated = []
        for record in good:
            cost = costs[own_experts(record)]
            server = from_command(record.command, base)
            simulated += [metrics(predicted(record, server, cost, s)) for s in range(SEEDS)]
        for name in METRICS:
            real = middle([m[name] for m in measured])
            guess = middle([s[name] for s in simulated])
            error = guess / real - 1 if real and guess is not None else None
            row[name] = {"measured": real, "predicted": guess, "error": error}
        rows.append(row)
    return rows


def report(rows: Sequence[dict[str, Any]], calibrating: Sequence[str]) -> str:
    """The table, and how many predictions are within ``WITHIN``."""
    lines = []
    for row in rows:
        mark = " *" if row["system"] in calibrating else ""
        at = "" if row["point"] is None else f" {row['point']:g}"
        line = [f"{row['scenario']}{at}: {row['system']}{mark}"]
        if "cause" in row:
            lines.append([*line, *[""] * len(METRICS)])
            continue
        for name in METRICS:
            cell = row[name]
            error = cell["error"]
            text = f"{number(cell['measured'])} {number(cell['predicted'])}"
            line.append("-" if error is None else f"{text} {error:+.0%}")
        lines.append(line)
    text = table(["measured, predicted, error", *METRICS], lines)
    for name in METRICS:
        errors = [
            abs(r[name]["error"])
            for r in rows
            if r["system"] not in calibrating and name in r and r[name]["error"] is not None
        ]
        if errors:
            near = sum(e <= WITHIN for e in errors)
            text += (
                f"\n{name}: {near} of {len(errors)} predictions within {WITHIN:.0%}, "
                f"median error {statistics.median(errors):.0%}, largest {max(errors):.0%}"
            )
    for row in rows:
        if "cause" in row:
            text += f"\n{row['scenario']}: {row['system']} has no result: {row['cause']}"
    if any(r["system"] in calibrating for r in rows):
        text += "\n* fitted to, not predicted"
    return text


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.capacity", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("results", nargs="+", type=Path, help="result files, or folders of them")
    parser.add_argument("--cost", type=Path, help="a cost file; without it, costs are fitted")
    parser.add_argument("--calibrate", nargs="*", default=CALIBRATE, help="systems to fit to")
    parser.add_argument(
        "--preemption", type=Path, help=f"a cost file to take {', '.join(PREEMPTION)} from"
    )
    parser.add_argument("--save-cost", type=Path, help="write the fitted costs of vLLM's experts")
    parser.add_argument("-o", "--out", type=Path, help="write the comparison as JSON")
    return parser.parse_args()


def main() -> int:
    arguments = parse()
    try:
        records = load_all(arguments.results)
        calibrating = () if arguments.cost else tuple(arguments.calibrate)
        if arguments.cost:
            cost = Cost.load(arguments.cost)
            costs = {False: cost, True: cost}
        else:
            source = Cost.load(arguments.preemption) if arguments.preemption else None
            known = {name: getattr(source, name) for name in PREEMPTION} if source else {}
            costs = calibrated(records, calibrating, **known)
        cost = costs[False]
        if arguments.save_cost:
            cost.save(arguments.save_cost)
        base = Server(kv_blocks=cost.kv_blocks or 8192, block_size=cost.block_size or 128)
        rows = compare(records, costs, base)
    except (BadRecord, CapacityError) as error:
        print(error, file=sys.stderr)
        return 2
    for own, cost in costs.items():
        print(
            f"{'this package' if own else 'vLLM'}'s experts: "
            + ", ".join(f"T({n}) {s * 1e3:.0f} ms" for n, s in cost.step)
            + f"; a decode's context {cost.context_s * 1e6:.2f} us a token, prefill "
            f"{cost.pair_s * 1e9:.2f} ns a pair, overhead {cost.overhead_s * 1e3:.0f} ms, "
            f"noise {cost.noise:.0%}, {cost.about.get('samples', '-')} steps"
        )
    print("\n" + report(rows, calibrating))
    if arguments.out:
        result = {"costs": {str(k): c.to_dict() for k, c in costs.items()}, "rows": rows}
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
