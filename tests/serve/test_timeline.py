# SPDX-License-Identifier: Apache-2.0
"""From a real server under load, by the command, to a trace that follows the format's rules."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import urllib.error
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.serve.server import Server
from tests.serve.test_preemption import complete, prompt
from tests.timeline.trace_rules import check, named

pytestmark = pytest.mark.server


def timeline(server: Server, output: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does."""
    command = [sys.executable, "-m", "vllm_qllm.timeline", "--url", server.url, "-o", str(output)]
    return subprocess.run([*command, *more], capture_output=True, text=True, timeout=60)


async def load(server: Server, turn: int) -> None:
    """Long best-effort prompts, and urgent requests that arrive on top of them."""
    seed = 100_000 + 1000 * turn
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
        tasks = [
            asyncio.create_task(complete(client, prompt(seed + n, 1900), 4, 9)) for n in range(4)
        ]
        for n in range(6):
            await asyncio.sleep(0.05)
            tasks.append(asyncio.create_task(complete(client, prompt(seed + 100 + n, 40), 4, 0)))
        await asyncio.gather(*tasks)


@pytest.mark.covers("Timeline", "eager", suspended=True)
def test_a_trace_of_a_server_under_load(server: Server, tmp_path: Path) -> None:
    output, raw = tmp_path / "trace.json", tmp_path / "timeline.json"
    for turn in range(20):  # until an arrival has hit a step
        asyncio.run(load(server, turn))
        done = timeline(server, output)
        assert done.returncode == 0, done.stderr
        trace = json.loads(output.read_text())
        tracks = check(trace)
        stops = [e for slices in tracks.values() for e in slices if e["cat"] == "suspended"]
        if any(e["args"]["by"] == "latency_sensitive" for e in stops):
            break
    urgent = next(e for e in stops if e["args"]["by"] == "latency_sensitive")
    assert urgent["args"]["class"] == "best_effort"
    assert urgent["args"]["where"] in ("before attention", "after attention", "experts")
    above = tracks[named(trace, ": steps", "nested 1 deep")]
    assert any(urgent["ts"] <= e["ts"] <= urgent["ts"] + urgent["dur"] for e in above)
    assert "latency_sensitive: " in done.stdout and "response time p50" in done.stdout
    assert timeline(server, raw, "--raw", "--seconds", "600").returncode == 0
    document = json.loads(raw.read_text())
    arrived = {e["id"] for e in document["engines"][0]["events"] if e["kind"] == "request_arrived"}
    # Those of other tests of this server are there, too.
    assert sum(name.startswith("cmpl-") for name in arrived) >= 10


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "3601", "ten", ""])
def test_bad_seconds_are_named(server: Server, seconds: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        server.get(f"/qllm/timeline?seconds={seconds}")
    assert refused.value.code in (400, 422)
    said: dict[str, Any] = json.loads(refused.value.read())
    assert "seconds" in json.dumps(said)


def test_it_is_documented_by_the_server(server: Server) -> None:
    paths = json.loads(server.get("/openapi.json"))["paths"]
    parameters = paths["/qllm/timeline"]["get"]["parameters"]
    assert [p["name"] for p in parameters] == ["seconds", "after"]
