# SPDX-License-Identifier: Apache-2.0
"""Exact response times: from a request's arrival in the engine to the first work of its step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def response_times(document: Mapping[str, Any]) -> dict[str, list[float]]:
    """Seconds by class, ascending, of the requests whose first work lies in the document's time.

    Args:
        document: as ``/qllm/timeline`` answers it.
    """
    found: dict[str, list[float]] = {}
    for engine in document["engines"]:
        for name in engine["classes"]:
            found.setdefault(name, [])
        for event in engine["events"]:
            if event["kind"] == "request_started" and event["time"] >= engine["start"]:
                found[event["class"]].append(event["response"])
    return {name: sorted(times) for name, times in found.items()}
