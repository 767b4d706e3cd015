# SPDX-License-Identifier: Apache-2.0
"""Exact response times: those of the window, by class, and none from a timeline with a gap."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.measurement.responses import response_times


def started(
    time: float, response: float, name: str = "latency_sensitive", request: int = 0
) -> dict[str, Any]:
    about = {"class": name, "request": request, "response": response}
    return {"kind": "request_started", "time": time, **about}


def arrived(time: float, request: int, name: str = "latency_sensitive") -> dict[str, Any]:
    return {"kind": "request_arrived", "time": time, "class": name, "request": request}


def step(kind: str, time: float, name: str) -> dict[str, Any]:
    return {"kind": f"step_{kind}", "time": time, "class": name}


def engine(*events: dict[str, Any], complete: bool = True) -> dict[str, Any]:
    return {"start": 100.0, "now": 115.0, "complete": complete, "events": list(events)}


def test_only_first_work_inside_the_window_counts() -> None:
    document = {
        "engines": [
            engine(
                started(99.0, 9.0),  # of something that was still going on at the beginning
                started(101.0, 0.3),
                arrived(102.0, 1),
                started(103.0, 0.1),
                started(104.0, 2.0, "best_effort"),
                started(110.0, 9.0),  # after the window
            ),
            engine(started(105.0, 0.2)),
        ]
    }
    found = response_times(document, 10.0)
    assert found == {"LS": [0.1, 0.2, 0.3], "BE": [2.0]}


@pytest.mark.parametrize("complete", [True, False])
def test_a_timeline_that_has_forgotten_a_part_says_nothing(complete: bool) -> None:
    document = {"engines": [engine(started(101.0, 0.3), complete=complete)]}
    assert bool(response_times(document, 10.0)) is complete


def test_those_that_found_a_best_effort_step_computing_are_told_apart() -> None:
    events = [
        step("started", 100.0, "best_effort"),
        step("suspended", 101.2, "best_effort"),
        arrived(101.0, 1),  # recorded when the engine takes it
        arrived(101.1, 9, "best_effort"),
        arrived(101.3, 2),  # between two steps
        step("started", 101.4, "latency_sensitive"),
        started(101.4, 0.4, request=1),
        started(101.4, 0.1, request=2),
        arrived(101.5, 3),  # behind its like
        step("finished", 101.6, "latency_sensitive"),
        step("resumed", 101.7, "best_effort"),
        arrived(101.8, 4),
        step("suspended", 101.9, "best_effort"),
        started(102.0, 0.2, request=4),
        started(102.0, 0.5, request=3),
        step("resumed", 102.1, "best_effort"),
        step("finished", 102.2, "best_effort"),
        arrived(102.3, 5),
        started(102.3, 0.0, request=5),
    ]
    found = response_times({"engines": [engine(*events)]}, 10.0)
    assert found == {"LS": [0.0, 0.1, 0.2, 0.4, 0.5], "LS behind BE": [0.2, 0.4]}
