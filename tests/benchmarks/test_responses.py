# SPDX-License-Identifier: Apache-2.0
"""Exact response times: those of the window, by class, and none from a timeline with a gap."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.responses import response_times


def started(time: float, response: float, name: str = "latency_sensitive") -> dict[str, Any]:
    return {"kind": "request_started", "time": time, "class": name, "response": response}


def engine(*events: dict[str, Any], complete: bool = True) -> dict[str, Any]:
    return {"start": 100.0, "now": 115.0, "complete": complete, "events": list(events)}


def test_only_first_work_inside_the_window_counts() -> None:
    document = {
        "engines": [
            engine(
                started(99.0, 9.0),  # of something that was still going on at the beginning
                started(101.0, 0.3),
                {"kind": "request_arrived", "time": 102.0, "class": "latency_sensitive"},
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
