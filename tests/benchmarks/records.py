# SPDX-License-Identifier: Apache-2.0
"""Records made by hand, whose numbers can be worked out in the head."""

from __future__ import annotations

from typing import Any

from benchmarks.record.record import Point, Record, Request


def request(
    number: int,
    scheduled: float,
    wait: float | None,
    gaps_ms: tuple[float, ...] = (),
    kind: str = "LS",
    **more: Any,
) -> Request:
    """Answered ``wait`` seconds after it was due, with these gaps between tokens; None: never."""
    first = None if wait is None else scheduled + wait
    answered = {} if first is None else {"end": first + sum(gaps_ms) / 1e3, "outcome": "ok"}
    return Request(
        kind=kind,
        number=number,
        prompt=100,
        output=len(gaps_ms) + 1,
        scheduled=scheduled,
        first=first,
        gaps_us=[round(gap * 1e3) for gap in gaps_ms],
        **({"sent": scheduled, "priority": 0} | answered | more),
    )


def record(system: str, *requests: Request, point: float | None = None, **more: Any) -> Record:
    """A run of 20 s, of which the seconds from 10 to 20 count; LS is an open loop."""
    defaults: dict[str, Any] = {
        "scenario": "mix",
        "round": 0,
        "key": "k",
        "about": system,
        "window": (10.0, 20.0),
        "ended": 30.0,
        "decode_slo": 10.0,
        "plan": {"open": ["LS"], "model": "m"},
        "conditions": {
            "cores": 2, "cpu": "c", "cpu_flags": [], "memory_gib": 1,
            "vllm": "0", "torch": "0", "python": "3", "commit": "abc",
        },
    }  # fmt: skip
    where = None if point is None else Point("requests/s", point)
    return Record(system=system, requests=list(requests), point=where, **(defaults | more))
