# SPDX-License-Identifier: Apache-2.0
"""The JSON document that ``/qllm/timeline`` answers, and that pictures are made from."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vllm_qllm.metrics.kept import kept
from vllm_qllm.timeline import location, window
from vllm_qllm.timeline.ring import NoRing, Record, Rows, read, records

FORMAT, VERSION = "vllm-qllm timeline", 1
# Events that are written down at once, in some tenths of a millisecond.
EVENTS = 32


@dataclass(frozen=True)
class Engine:
    """One engine's part of the document.

    Attributes:
        head: all but the events.
        rows: the events.
    """

    head: dict[str, Any]
    rows: Rows

    def events(self) -> Iterator[list[dict[str, Any]]]:
        """Some events at a time."""
        classes = self.head["classes"]
        for first in range(0, len(self.rows), EVENTS):
            found = records(self.rows[first : first + EVENTS])
            yield [event(record, classes) for record in found]


class Parts:
    """The document as JSON text, in parts that are made when they are asked for.

    Arguments and errors are those of :func:`document`.
    """

    def __init__(self, prefix: str, seconds: float, after: int = 0) -> None:
        self._head = {"format": FORMAT, "version": VERSION, "seconds": seconds}
        files = kept(Path(prefix).parent)  # which stay open until all are read
        self._engines = []
        for index, path in files.named(location.NAME).items():
            try:
                self._engines.append(engine(path, seconds, index=index, after=after))
            except NoRing as error:
                raise NoRing(f"{location.NAME}.{index} {error}") from error

    def __iter__(self) -> Iterator[bytes]:
        yield f'{json.dumps(self._head)[:-1]}, "engines": ['.encode()
        for index, one in enumerate(self._engines):
            yield f'{", " if index else ""}{json.dumps(one.head)[:-1]}, "events": ['.encode()
            comma = ""
            for events in one.events():
                yield f"{comma}{json.dumps(events)[1:-1]}".encode()
                comma = ", "
            yield b"]}"
        yield b"]}"


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
    found: dict[str, Any] = json.loads(b"".join(Parts(prefix, seconds, after)))
    return found


def engine(path: Path, seconds: float, index: int = 0, after: int = 0) -> Engine:
    """One engine's part of the document."""
    now = time.monotonic_ns()
    found = read(path, after)
    start = now - int(seconds * 1e9)
    times = found.rows["time"]
    head = {
        "engine": index,
        "pid": found.description["pid"],
        "classes": tuple(found.description["classes"]),
        "start": start / 1e9,
        "now": now / 1e9,
        "recorded": found.written,
        "complete": len(times) == max(0, found.written - after)
        or bool(len(times) and np.min(times) <= start),
    }
    return Engine(head, window.since(found.rows, start))


def event(record: Record, classes: tuple[str, ...]) -> dict[str, Any]:
    """One event; its keys are those of its kind."""
    kind = record.kind
    shown: dict[str, Any] = {
        "number": record.number,
        "time": record.time / 1e9,
        "kind": kind.name,
        "class": classes[record.level],
    }
    if kind.about:
        shown[kind.about] = record.subject
    for value, stored in zip(kind.values, record.values, strict=True):
        shown[value.name] = value.show(stored, classes)
    if record.label:
        shown["id"] = record.label
    return shown
