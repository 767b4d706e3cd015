# SPDX-License-Identifier: Apache-2.0
"""What ``max_wait_ms`` and ``slice_ms`` promise, on a real server, by its own timeline."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.serve.server import STRICT, serve
from tests.serve.standstill import ask

pytestmark = [pytest.mark.server, pytest.mark.slow]

# Slices are several times as long as a step of the tiny model, also on a slow machine: a fifth
# of the time is then several steps after each wait. Nobody rides.
FIFTH = {
    "ride_slowdown": 1,
    "timeline": True,
    "classes": [
        {"name": "latency_sensitive", "max_priority": 0},
        {"name": "best_effort", "max_wait_ms": 400, "slice_ms": 100},
    ],
}


def ran(events: Iterable[Mapping[str, Any]], start: float, end: float) -> dict[str, float]:
    """Seconds between ``start`` and ``end`` in which steps of each class ran."""
    found: dict[str, float] = {}
    since: float | None = None
    for event in events:
        if not event["kind"].startswith("step_") or event["kind"] == "step_copied":
            continue
        if event["kind"] in ("step_started", "step_resumed"):
            since = event["time"]
        elif since is not None:
            seconds = min(event["time"], end) - max(since, start)
            found[event["class"]] = found.get(event["class"], 0.0) + max(0.0, seconds)
            since = None
    return found


def test_decodes_keep_their_share_of_endless_urgent_ones(tiny_model: Path, tmp_path: Path) -> None:
    async def load(url: str) -> None:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client:
            # Best-effort tokens for longer than urgent ones last.
            await asyncio.gather(ask(client, 20, 300, 9, False), ask(client, 20, 600, 0, False))

    options = ("--priority-config", json.dumps(FIFTH))
    with serve(tiny_model, tmp_path / "log", *STRICT, *options) as server:
        asyncio.run(load(server.url))
        document = json.loads(server.get("/qllm/timeline?seconds=600"))
    events = document["engines"][0]["events"]
    start = max(e["time"] for e in events if e["kind"] == "request_first_token")
    end = min(e["time"] for e in events if e["kind"] == "request_finished")
    seconds = ran(events, start, end)
    waits = (end - start) / 0.5
    assert waits >= 4, "too short to tell"
    share = seconds["best_effort"] / sum(seconds.values())
    # The last slice may be missing or the only one without a wait, and steps end when they end.
    assert share == pytest.approx(0.2, abs=0.2 / waits + 0.04), (waits, seconds)
