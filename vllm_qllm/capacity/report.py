# SPDX-License-Identifier: Apache-2.0
"""A simulation's numbers as a table and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vllm_qllm.capacity.meter import Meter
from vllm_qllm.capacity.slo import Slo
from vllm_qllm.percentile import percentile

LATENCIES = ("ttft", "tpot", "e2e", "response")
PERCENTS = (50, 90, 99)


def numbers(meter: Meter, classes: Sequence[str], slos: Sequence[Slo] = ()) -> dict[str, Any]:
    """By class: requests, percentiles in seconds, tokens, and what was kept of the SLOs."""
    result: dict[str, Any] = {}
    for level, name in enumerate(classes):
        cls: dict[str, Any] = {
            "sent": meter.sent[level],
            "done": meter.done[level],
            "refused": meter.refused[level],
            "preemptions": meter.preemptions[level],
            "suspensions": meter.suspensions[level],
            "output_tokens": meter.emitted[level],
        }
        for latency in LATENCIES:
            values = getattr(meter, latency)[level]
            cls[latency] = {f"p{p}": percentile(values, p) for p in PERCENTS}
        mine = [slo for slo in slos if slo.level == level]
        if mine:
            cls["attained"] = min(slo.attained(meter) for slo in mine)
        result[name] = cls
    return result


def number(value: float | None) -> str:
    """Three significant digits, or a dash for nothing."""
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Plain text; the first column is left-aligned, the others right-aligned."""
    every = [header, *rows]
    widths = [max(len(row[i]) for row in every) for i in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in every
    ]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])


def summary(results: Sequence[tuple[str, int, dict[str, Any]]]) -> str:
    """One line for each (label, replicas) and class."""
    header = ["what", "replicas", "class", "requests"]
    header += ["TTFT p50", "p99", "TPOT p50", "p99", "e2e p50", "p99", "SLO kept"]
    rows = []
    for label, replicas, result in results:
        for name, cls in result.items():
            if not cls["sent"]:
                continue
            row = [label, str(replicas), name, str(cls["sent"])]
            for latency in ("ttft", "tpot", "e2e"):
                row += [number(cls[latency]["p50"]), number(cls[latency]["p99"])]
            kept = cls.get("attained")
            rows.append([*row, "" if kept is None else f"{kept:.2%}"])
            if cls["refused"]:
                rows[-1][3] += f" ({cls['refused']} refused)"
    return table(header, rows)
