# SPDX-License-Identifier: Apache-2.0
"""The directory of temporary files is cleaned under a running server: it goes on counting."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.serve import cleaned
from tests.serve.server import MODEL, Server

pytestmark = [pytest.mark.server, pytest.mark.slow]

TOKENS = 'qllm_generated_tokens_total{class="best_effort"}'


def generate(server: Server) -> None:
    body = {"model": MODEL, "prompt": "hi", "max_tokens": 3, "ignore_eos": True}
    server.post("/v1/completions", body | {"service_tier": "flex"})


def test_metrics_timeline_and_status_go_on(server: Server) -> None:
    generate(server)
    before = server.samples()
    assert before["qllm_recording_engines{}"] == 1
    files = cleaned.held(server, Path(tempfile.gettempdir()))
    (ours,) = {path.parent for path in files if path.name == "metrics.0"}
    assert {path.name for path in files if path.parent == ours} >= {"metrics.0", "timeline.0"}
    # Nothing else: caches and, in a checkout below it, libraries are there, too.
    shutil.rmtree(ours)
    generate(server)
    after = server.samples()
    assert after.keys() >= before.keys(), "a metric has vanished"
    assert after[TOKENS] == before[TOKENS] + 3
    (engine,) = json.loads(server.get("/qllm/timeline?seconds=60"))["engines"]
    assert [e["tokens"] for e in engine["events"] if e["kind"] == "request_finished"][-2:] == [3, 3]
    status = json.loads(server.get("/qllm/status?seconds=0"))
    assert status["classes"][1]["name"] == "best_effort"
    assert "Traceback" not in server.log.read_text()
