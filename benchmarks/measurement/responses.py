# SPDX-License-Identifier: Apache-2.0
"""Exact response times, from the timeline that our systems keep (``/qllm/timeline``)."""

from collections.abc import Mapping
from typing import Any

from benchmarks.measurement.counters import CLASS_OF

PATH = "/qllm/timeline"
KIND_OF = {name: kind for kind, name in CLASS_OF.items()}
LS_BEHIND_BE = "LS behind BE"
"""Those LS requests at whose arrival a BE step was computing: what yield points decide."""


def response_times(document: Mapping[str, Any], seconds: float) -> dict[str, list[float]]:
    """Seconds by class (LS, BE, LS_BEHIND_BE) of the requests whose first work lies in the
    document's first ``seconds``.

    Nothing when the engine has forgotten a part of that time: the rest would be no fair sample.
    """
    found: dict[str, list[float]] = {}
    for engine in document["engines"]:
        if not engine["complete"]:
            return {}
        computing = None
        behind_be = set()
        # By their times: an arrival is recorded when the engine's thread takes it, which is after
        # the suspension that the arrival asked for.
        for event in sorted(engine["events"], key=lambda event: event["time"]):
            match event["kind"]:
                case "step_started" | "step_resumed":
                    computing = event["class"]
                case "step_suspended" | "step_finished":
                    computing = None
                case "request_arrived":
                    if (computing, event["class"]) == (CLASS_OF["BE"], CLASS_OF["LS"]):
                        behind_be.add(event["request"])
            if event["kind"] != "request_started" or event["class"] not in KIND_OF:
                continue
            if engine["start"] <= event["time"] < engine["start"] + seconds:
                found.setdefault(KIND_OF[event["class"]], []).append(event["response"])
                if event["request"] in behind_be:
                    found.setdefault(LS_BEHIND_BE, []).append(event["response"])
    return {kind: sorted(times) for kind, times in found.items()}
