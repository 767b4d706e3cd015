# SPDX-License-Identifier: Apache-2.0
"""The JSON document that ``/qllm/timeline`` answers, and that pictures are made from."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from vllm_qllm.timeline import location, window
from vllm_qllm.timeline.ring import Record, read, records

FORMAT, VERSION = "vllm-qllm timeline", 1


def document(prefix: str, seconds: float, after: int = 0) -> dict[str, Any]:
    """What the engines of this server did in the last ``seconds``.

    Args:
        prefix: of the server's files (see :mod:`vllm_qllm.metrics.location`).
        seconds: of the past; what was still going on at their beginning is there from its start.
        after: leaves out events up to this number, which the caller has.

    Returns:
        As ``docs/timeline.md`` says.

    Raises:
        NoRing: a file is not a ring of this version.
    """
    engines = [
        engine(path, seconds, index=int(path.suffix[1:]), after=after)
        for path in location.rings(prefix)
    ]
    return {"format": FORMAT, "version": VERSION, "seconds": seconds, "engines": engines}


def engine(path: Path, seconds: float, index: int = 0, after: int = 0) -> dict[str, Any]:
    """One engine's part of the document."""
    now = time.monotonic_ns()
    found = read(path, after)
    classes = tuple(found.description["classes"])
    start = now - int(seconds * 1e9)
    kept = window.since(found.rows, start)
    times = found.rows["time"]
    return {
        "engine": index,
        "pid": found.description["pid"],
        "classes": classes,
        "start": start / 1e9,
        "now": now / 1e9,
        "recorded": found.written,
        "complete": len(times) == max(0, found.written - after)
        or bool(len(times) and np.min(times) <= start),
        "events": [event(record, classes) for record in records(kept)],
    }


def event(record: Record, classes: tuple[str, ...]) -> dict[str, Any]:
    """One event; its keys are those of its kind."""
    kind = record.kind
    shown: dict[str, Any] = {
        "number": record.number,
        "time": record.time / 1e9,
        "kind": kind.name,
        "class": classes[record.rank],
    }
    if kind.about:
        shown[kind.about] = record.subject
    for value, stored in zip(kind.values, record.values, strict=True):
        shown[value.name] = value.show(stored, classes)
    if record.label:
        shown["id"] = record.label
    return shown
