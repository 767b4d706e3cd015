# SPDX-License-Identifier: Apache-2.0
"""What others published beside what was measured here; benchmarks/README.md: what is comparable."""

import math
import statistics
from collections.abc import Callable, Sequence

from benchmarks.record.groups import Group, Results
from benchmarks.record.record import BE, LS, OK, Record, Request
from benchmarks.record.summary import (
    counted,
    number,
    of_class,
    suspensions,
    to_first_token,
    together,
    turnaround,
)
from benchmarks.report.markdown import table

# QLLM against TGI under FCFS, on an A100 (arXiv 2503.09304, abstract and section 5).
QLLM_TTFT, QLLM_TTFT_BEST = 65.5, 101.6
QLLM_TURNAROUND, QLLM_BE_TURNAROUND, QLLM_BE_WORST = 12.8, 1.38, 2.04
# ConServe on an H100 (arXiv 2410.01228): mean TTFT by what is on, ms; share of BE-alone throughput.
CONSERVE_TTFT = (1399, 686, 523)
CONSERVE_KEPT = "78 to 88 %"
# Valve (arXiv 2604.07874): what LS loses against having the machine to itself.
VALVE = "TTFT +5 %, TPOT +2 %, one preemption per LS request"
# vLLM issue 24365: seconds alone, and beside 30 that decode.
DECODING = (8, 16)


def mean(group: Group, kind: str, read: Callable[[Request], float]) -> tuple[float, bool] | None:
    """Mean over requests of all rounds, and whether it is only a lower bound: requests that were
    not answered count with what they had waited when the run ended."""
    values, cut = [], False
    for each in group.good:
        for request in counted(each, kind):
            value = read(request)
            if math.isinf(value):
                cut, value = True, each.ended - request.scheduled
            values.append(value)
    return (statistics.fmean(values), cut) if values else None


def quotient(base: Group | None, other: Group | None, kind: str, what: Callable) -> str:  # type: ignore[type-arg]
    """How often the mean of ``other`` fits into that of ``base``; a bound if requests were cut."""
    one = None if base is None else mean(base, kind, what)
    two = None if other is None else mean(other, kind, what)
    if one is None or two is None or not two[0]:
        return "-"
    sign = {(False, False): "", (True, False): ">", (False, True): "<", (True, True): "~"}
    return f"{sign[one[1], two[1]]}{number(one[0] / two[0])}"


def qllm(results: Results) -> str:
    """The paper's ratios, per rate, against fcfs and against the fairer baselines."""
    points = [g.point for g in results.groups("qllm") if g.system == "strict" and g.good]
    rows = []
    for point in points:
        ours = results.get("qllm", "strict", point)
        for name in ("fcfs", "priority-2048", "step"):
            base = results.get("qllm", name, point)
            if base is None or ours is None or point is None:
                continue
            rows.append(
                [
                    f"{point.value:g}",
                    name,
                    quotient(base, ours, LS, to_first_token),
                    quotient(base, ours, LS, turnaround),
                    quotient(ours, base, BE, turnaround),
                    f"{total(ours) / total(base):.2f}" if total(base) else "-",
                ]
            )
    if not rows:
        return ""
    paper = [
        *("paper, 1 to 7", "TGI, FCFS"),
        f"{QLLM_TTFT} mean, {QLLM_TTFT_BEST} best",
        f"{QLLM_TURNAROUND} best",
        f"{QLLM_BE_TURNAROUND} mean, {QLLM_BE_WORST} worst",
        "about 1",
    ]
    columns = ["requests/s", "strict against", "LS TTFT shorter", "LS turnaround shorter"]
    columns += ["BE turnaround longer", "throughput"]
    return (
        "The paper's ratios, of means; requests that were not answered count with what they had "
        "waited, so that > and < are bounds.\n\n" + table(columns, [*rows, paper])
    )


def total(group: Group) -> float:
    """Tokens per second of both classes, over rounds."""
    return statistics.fmean(map(together, group.good))


def conserve(results: Results) -> str:
    """The ablation, and how much of BE alone is kept."""
    names = ("priority-2048", "step", "strict-layer", "strict")
    groups = [results.get("conserve", name, None) for name in names]
    ttft = [None if g is None else mean(g, LS, to_first_token) for g in groups]
    parts = [
        f"{name} {number(found[0] * 1e3)}"
        for name, found in zip(names, ttft, strict=True)
        if found is not None
    ]
    lines = []
    if parts:
        before, scheduling, layers = CONSERVE_TTFT
        lines.append(
            f"Ablation, mean LS TTFT in ms: {'; '.join(parts)}. ConServe: {before} without, "
            f"{scheduling} with its scheduling, {layers} with layer-wise preemption, too."
        )
    ours, alone = (results.get("conserve", name, None) for name in ("strict", "be-alone"))
    if ours is not None and alone is not None and be_rate(alone):
        kept = be_rate(ours) / be_rate(alone)
        lines.append(
            f"strict keeps {kept:.0%} of the throughput of BE alone; ConServe {CONSERVE_KEPT}."
        )
    return "\n\n".join(lines)


def be_rate(group: Group) -> float:
    """BE tokens per second, over rounds."""
    return statistics.fmean(of_class(r, BE).tokens_per_second for r in group.good)


def decoding(results: Results) -> str:
    """Whole answers of LS, beside others against alone."""
    alone = results.get("decoding", "ls-alone", None)
    parts = []
    for group in results.groups("decoding"):
        one, two = (None if g is None else e2e(g.good) for g in (alone, group))
        if one and two and group.system != "ls-alone":
            parts.append(f"{group.system} {two / one:.2f}")
    if not parts:
        return ""
    return (
        f"An urgent answer beside 30 others takes, times what it takes alone: {'; '.join(parts)}. "
        f"The issue: {DECODING[1] / DECODING[0]:.1f} (vLLM priority)."
    )


def e2e(records: Sequence[Record]) -> float | None:
    """Median time of a whole LS answer."""
    found = [turnaround(r) for each in records for r in each.inside(LS) if r.outcome == OK]
    return statistics.median(found) if found else None


def valve(results: Results) -> str:
    """What LS loses against being alone in the mix, and how often a step is suspended for it."""
    ours, alone = (results.get("mix", name, None) for name in ("strict", "ls-alone"))
    if ours is None or alone is None:
        return ""
    changes = []
    for name, read in (("TTFT", lambda c: c.ttft.p50), ("TPOT", lambda c: c.tpot.p50)):
        mine, base = (
            statistics.median([read(of_class(r, LS)) or 0.0 for r in g.good]) for g in (ours, alone)
        )
        if base:
            changes.append(f"{name} {mine / base - 1:+.0%}")
    requests = sum(of_class(r, LS).requests for r in ours.good)
    if requests:
        rate = sum(suspensions(r)[1] for r in ours.good) / requests
        changes.append(f"{rate:.2f} suspensions per LS request")
    return f"strict against LS alone, at p50: {', '.join(changes)}. Valve: {VALVE}."


SECTIONS = {"mix": valve, "qllm": qllm, "conserve": conserve, "decoding": decoding}


def section(results: Results, scenario: str) -> str:
    """What belongs below a scenario's tables; empty where nothing does."""
    return SECTIONS[scenario](results) if scenario in SECTIONS else ""
