"""From records to numbers, tables and JSON.

How throughput is computed: a prompt's tokens count at the moment its first output token arrives, an
output token at the moment it arrives; tok/s is what falls into the window, over its length. So
requests in flight at either end count for the part that was done inside. Latencies are of the
requests *sent* inside the window, and are measured at the client.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.load import BE, LS, Record, Run


def percentile(values: Sequence[float], percent: float) -> float | None:
    """Linear between the two nearest ranks; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    at = (len(ordered) - 1) * percent / 100
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def spread(values: Sequence[float], *percents: float) -> dict[str, float | None]:
    """Percentiles by name, such as ``p50``; 100 is called ``max``."""
    return {"max" if p == 100 else f"p{p:g}": percentile(values, p) for p in percents}


def tokens_in_window(records: Iterable[Record], window: tuple[float, float]) -> int:
    """Prompt and output tokens of work done inside the window (see above for when each counts)."""
    start, end = window
    total = 0
    for record in records:
        total += sum(start <= moment < end for moment in record.tokens)
        if record.tokens and start <= record.tokens[0] < end:
            total += record.prompt_tokens
    return total


def summary(run: Run, kind: str) -> dict[str, Any]:
    """The numbers of one class: seconds, tokens per second, and requests by outcome."""
    start, end = run.window
    mine = [r for r in run.records if r.kind == kind]
    inside = [r for r in mine if start <= r.sent < end]
    done = [r for r in inside if r.outcome == "ok" and r.end is not None]
    gaps = [b - a for r in done for a, b in zip(r.tokens, r.tokens[1:], strict=False)]
    return {
        "requests": len(inside),
        "outcomes": dict(Counter(r.outcome for r in inside)),
        # Over the whole run: a failure during warm-up is one too.
        "errors": dict(Counter(r.error for r in mine if r.outcome == "failed")),
        "ttft": spread([r.tokens[0] - r.sent for r in inside if r.tokens], 50, 90, 99, 100),
        "tpot": spread(
            [(r.tokens[-1] - r.tokens[0]) / (len(r.tokens) - 1) for r in done if len(r.tokens) > 1],
            50,
            99,
        ),
        "gap": spread(gaps, 99, 100),
        "e2e": spread([r.end - r.sent for r in done if r.end is not None], 50, 99, 100),
        "tokens_per_second": tokens_in_window(mine, run.window) / (end - start),
        "sent_late": max((r.late for r in inside), default=0.0),
    }


def summaries(run: Run) -> dict[str, Any]:
    """Both classes, and the two together."""
    classes = {kind: summary(run, kind) for kind in (LS, BE)}
    together = sum(c["tokens_per_second"] for c in classes.values())
    return {**classes, "tokens_per_second": together, "seconds": run.window[1] - run.window[0]}


def number(value: float | None, digits: int = 3) -> str:
    """Three significant digits, or a dash for nothing."""
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:#.{digits}g}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Plain text; the first column is left-aligned, the others right-aligned."""
    every = [header, *rows]
    widths = [max(len(row[i]) for row in every) for i in range(len(header))]
    lines = [
        "  ".join(
            c.ljust(w) if i == 0 else c.rjust(w)
            for i, (c, w) in enumerate(zip(r, widths, strict=True))
        )
        for r in every
    ]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])
