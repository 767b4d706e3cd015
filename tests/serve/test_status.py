# SPDX-License-Identifier: Apache-2.0
"""What ``/qllm/status`` says of a real server is what its ``/metrics`` say."""

from __future__ import annotations

import json
import time
import urllib.error
from typing import Any

import pytest

from tests.serve.conftest import HOSTILE
from tests.serve.server import MODEL, Server
from vllm_qllm.status.classes import COUNTERS, HISTOGRAMS, QUEUE

pytestmark = pytest.mark.server


def status(server: Server, seconds: float = 0) -> dict[str, Any]:
    """The document; all since the start."""
    found: dict[str, Any] = json.loads(server.get(f"/qllm/status?seconds={seconds:g}"))
    return found


@pytest.mark.covers("Status page", "eager")
def test_all_numbers_are_those_of_metrics(server: Server) -> None:
    body = {"model": MODEL, "prompt": "hi", "max_tokens": 3, "priority": 7, "ignore_eos": True}
    answer = server.post("/v1/completions", body)
    assert answer["usage"]["completion_tokens"] == 3
    # An answer may be here before the engine has counted its last step; and the server is shared.
    deadline = time.monotonic() + 30
    while True:
        before, found, after = server.samples(), status(server), server.samples()
        if before == after:
            break
        assert time.monotonic() < deadline, "something still runs"
    for cls in found["classes"]:
        name, recent = cls["name"], cls["recent"]
        for key, metric in QUEUE.items():
            assert cls["queue"][key] == after[f'{metric}{{class="{name}"}}'], metric
        for key, metric in COUNTERS.items():
            assert recent[key] == after[f'{metric}{{class="{name}"}}'], metric
        for key, metric in HISTOGRAMS.items():
            count = after[f'{metric}_count{{class="{name}"}}']
            assert recent[key]["count"] == count, metric
            if count:
                mean = after[f'{metric}_sum{{class="{name}"}}'] / count
                assert recent[key]["mean"] == pytest.approx(mean), metric
        for outcome, number in recent["ended"].items():
            key = f'qllm_requests_total{{class="{name}",outcome="{outcome}"}}'
            assert number == after[key]
        bound = f"{cls['objective']['ttft_ms'] / 1000:.1f}"
        timely = after[f'qllm_time_to_first_token_seconds_bucket{{class="{name}",le="{bound}"}}']
        assert cls["objective"]["requests"] - cls["objective"]["late"] == timely
    for pair in found["suspensions"]:
        key = f'{{by="{pair["by"]}",of="{pair["of"]}"}}'
        assert pair["suspensions"] == after[f"qllm_suspensions_total{key}"]
    best_effort = found["classes"][1]["recent"]
    assert best_effort["generated_tokens"] >= 3 and best_effort["ended"]["length"] >= 1
    assert found["state"] == "serving" and found["models"] == [MODEL, HOSTILE]
    assert found["policy"]["name"] == "strict" and found["tenants"] is None


@pytest.mark.parametrize("seconds", ["-1", "nan", "inf", "301", "ten", ""])
def test_bad_seconds_are_named(server: Server, seconds: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        server.get(f"/qllm/status?seconds={seconds}")
    assert refused.value.code in (400, 422)
    assert "seconds" in refused.value.read().decode()


def test_it_is_documented_by_the_server(server: Server) -> None:
    paths = json.loads(server.get("/openapi.json"))["paths"]
    assert [p["name"] for p in paths["/qllm/status"]["get"]["parameters"]] == ["seconds"]
    assert "/qllm/" in paths
