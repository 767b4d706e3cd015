# SPDX-License-Identifier: Apache-2.0
"""From a timeline document to the trace-event format, which Perfetto and Chrome open.

Each engine gives a group of tracks for its steps, one for each nesting depth; one with a counter
for the queue of each class; and one for the requests of each class, where a request has the first
row that is free when it arrives. Times are microseconds from the earliest event.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vllm_qllm.timeline.spans import Span, request_spans, step_spans

# What is told of a request that loses its KV blocks, and that comes back.
TOKENS = ("computed", "spilled", "saved", "recomputed")

Event = Mapping[str, Any]
TraceEvent = dict[str, Any]


def trace(document: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object in the trace-event format.

    Args:
        document: as ``/qllm/timeline`` answers it.
    """
    engines = document["engines"]
    times = [event["time"] for engine in engines for event in engine["events"]]
    origin = min(times, default=0.0)
    found: list[TraceEvent] = []
    groups = 0
    for engine in engines:
        number_of_groups = 2 + len(engine["classes"])
        found += _Engine(engine, origin, groups + 1).events()
        groups += number_of_groups
    # Viewers want the outer of two that begin together first.
    found.sort(key=lambda e: (e["ph"] != "M", e.get("ts", 0.0), -e.get("dur", 0.0)))
    about = {"monotonic_time_of_zero": origin}
    return {"traceEvents": found, "displayTimeUnit": "ms", "otherData": about}


class _Engine:
    """One engine's tracks, in groups ("processes" of the format) numbered from ``first``."""

    def __init__(self, engine: Mapping[str, Any], origin: float, first: int) -> None:
        self._engine = engine
        self._events: Sequence[Event] = sorted(engine["events"], key=lambda e: e["time"])
        self._origin = origin
        self._steps, self._queues, self._requests = first, first + 1, first + 2
        self._end = max([engine["now"], *(e["time"] for e in self._events)])

    def events(self) -> Iterator[TraceEvent]:
        name = f"engine {self._engine['engine']}"
        yield from self._group(self._steps, f"{name}: steps")
        yield from self._group(self._queues, f"{name}: queues")
        for level, cls in enumerate(self._engine["classes"]):
            yield from self._group(self._requests + level, f"{name}: requests, {cls}")
        yield from self._step_tracks()
        yield from self._queue_tracks()
        yield from self._request_tracks()

    def _group(self, group: int, name: str) -> Iterator[TraceEvent]:
        yield {"ph": "M", "name": "process_name", "pid": group, "args": {"name": name}}
        order = {"sort_index": group}
        yield {"ph": "M", "name": "process_sort_index", "pid": group, "args": order}

    def _track(self, group: int, track: int, name: str) -> TraceEvent:
        args = {"name": name}
        return {"ph": "M", "name": "thread_name", "pid": group, "tid": track, "args": args}

    def _us(self, time: float) -> float:
        return round((time - self._origin) * 1e6, 3)

    def _slice(self, group: int, track: int, span: Span) -> TraceEvent:
        start, end = self._us(span.start), self._us(span.end)
        return {
            "ph": "X",
            "name": span.name,
            "cat": span.category,
            "pid": group,
            "tid": track,
            "ts": start,
            "dur": round(end - start, 3),
            "args": span.args,
        }

    def _step_tracks(self) -> Iterator[TraceEvent]:
        depths = set()
        for depth, span in step_spans(self._events, self._end):
            depths.add(depth)
            yield self._slice(self._steps, depth, span)
        for depth in sorted(depths):
            name = f"nested {depth} deep" if depth else "steps"
            yield self._track(self._steps, depth, name)

    def _queue_tracks(self) -> Iterator[TraceEvent]:
        for event in self._events:
            if event["kind"] == "queue":
                yield self._counter(event, "", ("waiting", "running", "suspended"))
            elif event["kind"] == "kv":
                yield self._counter(event, ": KV on the device", ("parked_blocks",))
                yield self._counter(event, ": KV on the host", ("spilled_bytes",))

    def _counter(self, event: Event, of: str, values: tuple[str, ...]) -> TraceEvent:
        return {
            "ph": "C",
            "name": event["class"] + of,
            "pid": self._queues,
            "ts": self._us(event["time"]),
            "args": {value: event[value] for value in values},
        }

    def _request_tracks(self) -> Iterator[TraceEvent]:
        for level, cls in enumerate(self._engine["classes"]):
            group = self._requests + level
            free_at: list[float] = []  # of each row
            of_class = [e for e in self._events if e["class"] == cls]
            for spans, moments in request_spans(of_class, self._end):
                whole = spans[0]
                row = next((r for r, t in enumerate(free_at) if t <= whole.start), len(free_at))
                free_at[row : row + 1] = [whole.end]
                for span in spans:
                    yield self._slice(group, row, span)
                for moment in moments:
                    yield {
                        "ph": "i",
                        "s": "t",
                        "name": moment["kind"].removeprefix("request_"),
                        "pid": group,
                        "tid": row,
                        "ts": self._us(moment["time"]),
                        "args": {k: moment[k] for k in TOKENS if k in moment},
                    }
            for row in range(len(free_at)):
                yield self._track(group, row, f"{cls} {row + 1}")
