# SPDX-License-Identifier: Apache-2.0
"""The rules of the trace-event format, as far as Perfetto's import depends on them."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

FIELDS = {
    "M": {"name", "pid", "args"},
    "X": {"name", "cat", "pid", "tid", "ts", "dur", "args"},
    "C": {"name", "pid", "ts", "args"},
    "i": {"name", "pid", "tid", "ts", "s"},
}
METADATA = {"process_name": "name", "process_sort_index": "sort_index", "thread_name": "name"}
# Times are written with three decimals of a microsecond.
ROUNDING = 0.0015

Track = tuple[int, int]


def check(trace: dict[str, Any]) -> dict[Track, list[dict[str, Any]]]:
    """AssertionError where a rule is broken; returns the slices of each track, by begin.

    On one track a slice lies inside another or beside it, and never across its end.
    """
    assert json.loads(json.dumps(trace)) == trace, "it is JSON"
    names: dict[Track, str] = {}
    groups: dict[int, str] = {}
    tracks: dict[Track, list[dict[str, Any]]] = defaultdict(list)
    last: dict[tuple[Any, ...], float] = {}
    for event in trace["traceEvents"]:
        assert FIELDS[event["ph"]] <= event.keys(), event
        if event["ph"] == "M":
            assert METADATA[event["name"]] in event["args"], event
            if event["name"] == "process_name":
                assert groups.setdefault(event["pid"], event["args"]["name"])
            elif event["name"] == "thread_name":
                track = event["pid"], event["tid"]
                assert track not in names, f"{track} is named twice"
                names[track] = event["args"]["name"]
            continue
        assert event["ts"] >= 0, event
        key = event["ph"], event["pid"], event.get("tid"), event["ph"] == "C" and event["name"]
        assert event["ts"] >= last.get(key, 0.0), f"{event} comes after a later one"
        last[key] = event["ts"]
        if event["ph"] == "X":
            assert event["dur"] >= 0, event
            tracks[event["pid"], event["tid"]].append(event)
        elif event["ph"] == "C":
            assert all(isinstance(v, int) and v >= 0 for v in event["args"].values()), event
    assert len(set(groups.values())) == len(groups)
    assert tracks.keys() <= names.keys(), "every track has a name"
    assert {pid for pid, _ in tracks} <= groups.keys()
    for slices in tracks.values():
        open_until: list[float] = []
        for event in slices:
            end = event["ts"] + event["dur"]
            while open_until and event["ts"] >= open_until[-1] - ROUNDING:
                open_until.pop()
            assert not open_until or end <= open_until[-1] + ROUNDING, f"{event} crosses an end"
            open_until.append(end)
    return dict(tracks)


def named(trace: dict[str, Any], group: str, track: str) -> Track:
    """The track with this name in the group whose name ends so."""
    pids = {
        e["pid"]
        for e in trace["traceEvents"]
        if e["name"] == "process_name" and e["args"]["name"].endswith(group)
    }
    (found,) = (
        (e["pid"], e["tid"])
        for e in trace["traceEvents"]
        if e["name"] == "thread_name" and e["pid"] in pids and e["args"]["name"] == track
    )
    return found
