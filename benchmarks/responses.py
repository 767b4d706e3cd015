"""Exact response times, from the timeline that our systems keep (``/qllm/timeline``)."""

from collections.abc import Mapping
from typing import Any

from benchmarks.counters import CLASS_OF

PATH = "/qllm/timeline"
KIND_OF = {name: kind for kind, name in CLASS_OF.items()}


def response_times(document: Mapping[str, Any], seconds: float) -> dict[str, list[float]]:
    """Seconds by class (LS, BE) of the requests whose first work lies in the document's first
    ``seconds``.

    Nothing when the engine has forgotten a part of that time: the rest would be no fair sample.
    """
    found: dict[str, list[float]] = {}
    for engine in document["engines"]:
        if not engine["complete"]:
            return {}
        for event in engine["events"]:
            if event["kind"] != "request_started" or event["class"] not in KIND_OF:
                continue
            if engine["start"] <= event["time"] < engine["start"] + seconds:
                found.setdefault(KIND_OF[event["class"]], []).append(event["response"])
    return {kind: sorted(times) for kind, times in found.items()}
