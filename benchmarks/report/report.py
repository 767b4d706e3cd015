# SPDX-License-Identifier: Apache-2.0
"""Everything about every scenario: latency, throughput, the engine's counters, peers, failures."""

import math
from collections.abc import Sequence

from benchmarks.measurement import equality
from benchmarks.measurement.responses import LS_BEHIND_BE
from benchmarks.record.groups import Group, Reader, Results, middle
from benchmarks.record.record import BE, KINDS, LS, Record
from benchmarks.record.summary import (
    Bounds,
    attainment,
    number,
    of_class,
    preemptions,
    spread,
    suspensions,
    together,
)
from benchmarks.report import peers
from benchmarks.report.labels import caption, first, heading, ratio
from benchmarks.report.markdown import table
from benchmarks.report.verdict import losses


def counts(group: Group) -> str:
    """LS requests of all rounds, and what became of those that were not answered."""
    found = [of_class(r, LS) for r in group.good]
    text = str(sum(c.requests for c in found))
    failed, never = sum(c.failed for c in found), sum(c.unanswered for c in found)
    text += f", {failed} failed" if failed else ""
    return text + (f", {never} unanswered" if never else "")


def latency_table(results: Results, scenario: str) -> str:
    """What LS waited for; in brackets the ratio to LS alone."""
    columns: list[tuple[str, bool, Reader]] = [
        ("TTFT p50", True, lambda r: of_class(r, LS).ttft.p50),
        ("p90", False, lambda r: of_class(r, LS).ttft.p90),
        ("p99", True, lambda r: of_class(r, LS).ttft.p99),
        ("max", False, lambda r: of_class(r, LS).ttft.max),
        ("TPOT p50", True, lambda r: of_class(r, LS).tpot.p50),
        ("p99", False, lambda r: of_class(r, LS).tpot.p99),
        ("gap p99", False, lambda r: of_class(r, LS).gap.p99),
        ("max", False, lambda r: of_class(r, LS).gap.max),
        ("e2e p50", True, lambda r: of_class(r, LS).e2e.p50),
        ("p99", False, lambda r: of_class(r, LS).e2e.p99),
    ]
    slo = results.ttft_slo(scenario)
    rows = []
    for group in results.groups(scenario):
        if not group.good or LS not in group.good[0].plan.get("kinds", (LS,)):
            continue
        alone = results.alone(group)
        row = [*first(group), counts(group)]
        for _, compared, read in columns:
            base = middle(alone, read) if alone is not None and compared else None
            value = middle(group, read)
            row.append(number(value) if alone is group else ratio(value, base))
        met = None if slo is None else middle(group, lambda r: attainment(r, slo))
        row.append("-" if met is None else f"{met:.0%}")
        rows.append(row)
    promised = "in SLO" if slo is None else f"in {number(slo)} s"
    header = [*heading(results, scenario), "LS requests", *(c[0] for c in columns), promised]
    return table(header, rows) if rows else "No LS requests."


def throughput_table(results: Results, scenario: str) -> str:
    """What BE got, and both together."""
    columns: list[tuple[str, Reader]] = [
        ("BE TTFT p50", lambda r: of_class(r, BE).ttft.p50),
        ("e2e p50", lambda r: of_class(r, BE).e2e.p50),
        ("e2e p99", lambda r: of_class(r, BE).e2e.p99),
        ("longest stall", lambda r: of_class(r, BE).stall),
        ("BE tok/s", lambda r: of_class(r, BE).tokens_per_second),
        ("LS tok/s", lambda r: of_class(r, LS).tokens_per_second),
        ("LS + BE tok/s", together),
    ]
    rows = [
        [*first(group), *(number(middle(group, read)) for _, read in columns)]
        for group in results.groups(scenario)
        if group.good and BE in group.good[0].plan.get("kinds", (BE,))
    ]
    header = [*heading(results, scenario), *(c[0] for c in columns)]
    return table(header, rows) if rows else "No BE requests."


def between(found: Sequence[Bounds], name: str) -> str:
    """Widest bounds of a quantile over rounds, in milliseconds."""
    pairs = [bounds[name] for bounds in found if name in bounds]
    if not pairs:
        return "-"
    low, high = min(p[0] for p in pairs) * 1e3, max(p[1] for p in pairs) * 1e3
    return f">{low:g}" if math.isinf(high) else f"{low:g}-{high:g}"


def share(pair: tuple[int, int]) -> str:
    """``3 of 4``."""
    return f"{pair[0]} of {pair[1]}" if pair[1] else "-"


def engine_table(results: Results, scenario: str) -> str:
    """What the engine counted, and whether the tokens were those of the request alone."""
    rows = []
    for group in results.groups(scenario):
        if not group.good:
            continue
        ls, be = ([of_class(r, k) for r in group.good] for k in (LS, BE))
        of_be, by_ls = (sum(s) for s in zip(*map(suspensions, group.good), strict=True))
        requests = sum(c.requests for c in ls), sum(c.requests for c in be)
        equal = equality.total([r.equality for r in group.good])
        ours = any(s.startswith("qllm_") for r in group.good for s in r.after)
        rows.append(
            [
                *first(group),
                between([c.queueing for c in ls], "p50"),
                between([c.queueing for c in ls], "p99"),
                *response(group),
                *exact_response(group, LS_BEHIND_BE),
                f"{by_ls / requests[0]:.2f}" if ours and requests[0] else "-",
                f"{of_be / requests[1]:.2f}" if ours and requests[1] else "-",
                f"{sum(map(preemptions, group.good)):.0f}",
                share(equal[LS]),
                share(equal[BE]),
            ]
        )
    columns = ["queueing p50 ms", "p99", "LS response p50 ms", "p99", "max"]
    columns += ["behind BE p50 ms", "p99", "max"]
    columns += ["suspensions per LS", "per BE", "preempted", "LS tokens equal", "BE"]
    return table([*heading(results, scenario), *columns], rows) if rows else "Nothing ran."


def response(group: Group) -> list[str]:
    """p50, p99 and max of the response time in ms: exact where recorded, else a bucket's bounds."""
    if any(LS in r.responses for r in group.good):
        return exact_response(group, LS)
    bounds = [of_class(r, LS).response for r in group.good]
    return [between(bounds, "p50"), between(bounds, "p99"), "-"]


def exact_response(group: Group, kind: str) -> list[str]:
    """p50, p99 and max in ms of the response times recorded exactly."""
    times = [seconds * 1e3 for r in group.good for seconds in r.responses.get(kind, ())]
    if not times:
        return ["-", "-", "-"]
    found = spread(times)
    return [number(found.p50), number(found.p99), number(found.max)]


def goodput(results: Results, scenario: str) -> str:
    """The highest rate at which nine of ten LS requests meet the SLO, for each system."""
    slo = results.ttft_slo(scenario)
    point = next((g.point for g in results.groups(scenario) if g.point is not None), None)
    if slo is None or point is None:
        return ""
    words = []
    for name in results.systems(scenario):
        good = 0.0
        for group in results.groups(scenario):
            if group.system == name and group.point is not None:
                met = middle(group, lambda r: attainment(r, slo))
                if met is not None and met >= 0.9:
                    good = max(good, group.point.value)
        words.append(f"{name} {good:g}" if good else f"{name} none of those measured")
    return (
        f"Goodput, the highest measured {point.name} with 90 % of LS first tokens within "
        f"{number(slo)} s: {'; '.join(words)}."
    )


def troubles(results: Results, scenario: str) -> list[str]:
    """What failed, with its cause."""
    lines = []
    for group in results.groups(scenario):
        where = " at ".join(first(group))
        for each in group.records:
            if each.status != "ok":
                cause = (each.cause or "").splitlines()[0]
                lines.append(f"- **{where}, round {each.round + 1} failed**: {cause}")
            for kind in KINDS:
                for error, times in of_class(each, kind).errors.items() if group.good else ():
                    lines.append(f"- {where}, round {each.round + 1}: {times} x {kind}: {error}")
    return lines


def section(results: Results, scenario: str) -> str:
    """All about one scenario."""
    some = results.groups(scenario)[0].records[0]
    parts = [
        f"## {scenario}",
        some.plan.get("question", ""),
        "LS latency in seconds; in brackets the ratio to LS alone at the same load.",
        latency_table(results, scenario),
        "BE latency in seconds, and throughput.",
        throughput_table(results, scenario),
        "From the engine. Queueing is of both classes; a range is the bucket of vLLM's histogram.",
        engine_table(results, scenario),
        goodput(results, scenario),
        peers.section(results, scenario),
        "\n".join(troubles(results, scenario)),
    ]
    return "\n\n".join(part for part in parts if part)


def render(records: Sequence[Record]) -> str:
    """Everything."""
    results = Results(records)
    parts = [caption(records), *(section(results, s) for s in results.scenarios)]
    lost = losses(results)
    if lost:
        parts += ["## Where ours loses to a stock system", "\n".join(lost)]
    return "\n\n".join(parts)
