# SPDX-License-Identifier: Apache-2.0
"""From one record to numbers.

Latencies are of requests that were due inside the window, measured at the client from the moment
they were due. A request of an open loop that failed or was never answered counts as one that waited
for ever: a percentile that falls on it is infinite, rather than computed from the lucky ones. In a
closed loop every client has a request in flight when the run ends; those are left out, failed ones
are not.

Throughput: a prompt's tokens count at the moment its first output token arrives, an output token at
the moment it arrives; tokens a second is what falls into the window, over its length.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from benchmarks.measurement import counters
from benchmarks.record.record import BE, FAILED, KINDS, LS, OK, UNANSWERED, Record, Request
from vllm_qllm.percentile import percentile

SECONDS_A_BIN = 5.0


@dataclass(frozen=True)
class Spread:
    """Percentiles of one quantity; None where there is nothing."""

    p50: float | None
    p90: float | None
    p99: float | None
    max: float | None
    mean: float | None


@dataclass(frozen=True)
class Class:
    """The numbers of one class in one run. Seconds, and tokens per second.

    Attributes:
        requests: due inside the window; of them ``failed`` and ``unanswered``.
        errors: message to how often, over the whole run: a failure during warm-up is one too.
        ttft: from due to the first token.
        tpot: mean time between the tokens of a request.
        gap: every single time from one token to the next.
        e2e: from due to the last token (turnaround).
        queueing: None, or bounds (lower, upper) of the quantiles 0.5, 0.9 and 0.99 of the time from
            arrival in the engine to first being scheduled; vLLM's own histogram, of both classes.
        response: the same of the time to the first work of the request's own step; the plugin's.
        stall: longest stretch of the window in which no token of the class came.
        late: how late the client itself was at most.
    """

    requests: int
    failed: int
    unanswered: int
    errors: dict[str, int]
    ttft: Spread
    tpot: Spread
    gap: Spread
    e2e: Spread
    queueing: "Bounds"
    response: "Bounds"
    tokens_per_second: float
    stall: float
    late: float


Bounds = dict[str, tuple[float, float]]


def spread(values: Sequence[float]) -> Spread:
    """All percentiles of some values."""
    p50, p90, p99, top = (percentile(values, p) for p in (50, 90, 99, 100))
    return Spread(p50, p90, p99, top, sum(values) / len(values) if values else None)


def counted(record: Record, kind: str) -> list[Request]:
    """Requests whose latency counts: due inside the window, and not merely cut off at the end."""
    inside = record.inside(kind)
    return inside if record.is_open(kind) else [r for r in inside if r.outcome != UNANSWERED]


def to_first_token(request: Request) -> float:
    """Seconds from due to the first token; infinite where none came."""
    return math.inf if request.first is None else request.first - request.scheduled


def turnaround(request: Request) -> float:
    """Seconds from due to the last token; infinite where it did not come."""
    good = request.outcome == OK and request.end is not None
    return request.end - request.scheduled if good and request.end is not None else math.inf


def of_class(record: Record, kind: str) -> Class:
    """The numbers of one class."""
    inside, counts = record.inside(kind), counted(record, kind)
    done = [r for r in counts if r.outcome == OK]
    name = counters.CLASS_OF[kind]
    return Class(
        requests=len(inside),
        failed=sum(r.outcome == FAILED for r in inside),
        unanswered=sum(r.outcome == UNANSWERED for r in inside) if record.is_open(kind) else 0,
        errors=dict(Counter(r.error or "" for r in record.of(kind) if r.outcome == FAILED)),
        ttft=spread([to_first_token(r) for r in counts]),
        tpot=spread([sum(r.gaps) / len(r.gaps) for r in done if r.gaps_us]),
        gap=spread([gap for r in done for gap in r.gaps]),
        e2e=spread([turnaround(r) for r in counts]),
        queueing=bounds(record, "vllm:request_queue_time_seconds"),
        response=bounds(record, "qllm_response_seconds", **{"class": name}),
        tokens_per_second=tokens_in_window(record, kind) / record.seconds,
        stall=stall(record, kind),
        late=max((r.sent - r.scheduled for r in inside), default=0.0),
    )


def bounds(record: Record, name: str, **labels: str) -> Bounds:
    """Bounds of the quantiles of one of the engine's histograms, over the window."""
    buckets = counters.histogram(record.before, record.after, name, **labels)
    found = {f"p{p}": counters.quantile_bounds(buckets, p / 100) for p in (50, 90, 99)}
    return {p: between for p, between in found.items() if between is not None}


def tokens_in_window(record: Record, kind: str) -> int:
    """Prompt and output tokens of work done inside the window."""
    start, end = record.window
    total = 0
    for request in record.of(kind):
        total += sum(start <= moment < end for moment in request.tokens)
        if request.first is not None and start <= request.first < end:
            total += request.prompt
    return total


def stall(record: Record, kind: str) -> float:
    """Longest time inside the window without a token of the class; 0 for one without any load."""
    start, end = record.window
    if not record.of(kind):
        return 0.0
    moments = sorted(t for r in record.of(kind) for t in r.tokens if start <= t < end)
    edges = [start, *moments, end]
    return max(b - a for a, b in pairwise(edges))


def progress(record: Record, kind: str) -> list[tuple[float, float]]:
    """(seconds into the window, tokens per second) in bins, prompt tokens as above."""
    start, end = record.window
    bins = max(1, round((end - start) / SECONDS_A_BIN))
    width = (end - start) / bins
    sums = [0] * bins
    for request in record.of(kind):
        moments = [(t, 1) for t in request.tokens]
        if request.first is not None:
            moments.append((request.first, request.prompt))
        for moment, tokens in moments:
            if start <= moment < end:
                sums[min(bins - 1, int((moment - start) / width))] += tokens
    return [(i * width, total / width) for i, total in enumerate(sums)]


def decode_iteration(record: Record) -> float | None:
    """Median time between an LS request's tokens: one decode step, where LS is alone."""
    return spread([gap for r in record.of(LS) if r.outcome == OK for gap in r.gaps]).p50


def attainment(record: Record, ttft_slo: float) -> float | None:
    """Share of LS requests whose first token came within ``ttft_slo`` seconds."""
    waits = [to_first_token(r) for r in counted(record, LS)]
    return sum(wait <= ttft_slo for wait in waits) / len(waits) if waits else None


def suspensions(record: Record) -> tuple[float, float]:
    """(suspensions of BE steps, suspensions caused by LS) inside the window."""
    name, grew = "qllm_suspensions_total", counters.increase
    ls, be = counters.CLASS_OF[LS], counters.CLASS_OF[BE]
    return (
        grew(record.before, record.after, name, of=be),
        grew(record.before, record.after, name, by=ls),
    )


def preemptions(record: Record) -> float:
    """Requests that lost their KV blocks inside the window, by vLLM's count."""
    return counters.increase(record.before, record.after, "vllm:num_preemptions_total")


def together(record: Record) -> float:
    """Tokens per second of both classes."""
    return sum(of_class(record, kind).tokens_per_second for kind in KINDS)


def number(value: float | None, digits: int = 3) -> str:
    """Three significant digits; a dash for nothing, a word for what never came."""
    if value is None:
        return "-"
    if math.isinf(value):
        return "never"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:#.{digits}g}"
