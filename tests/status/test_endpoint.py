# SPDX-License-Identifier: Apache-2.0
"""The routes and their headers, without a server."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import threading
import time
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tests.api.client import Client as RecordingClient
from vllm_qllm.api import draining
from vllm_qllm.config import CARRIER, PriorityConfig
from vllm_qllm.metrics.pulse import Pulse
from vllm_qllm.metrics.recorder import Recorder
from vllm_qllm.status.endpoint import StatusEndpoint

CONFIG = PriorityConfig()
ARGUMENTS = Namespace(served_model_name=None, model="/models/<b>bold</b>")


class Client(RecordingClient):
    """An engine's client."""

    output_handler = None
    engine_core = SimpleNamespace(resources=SimpleNamespace(engine_manager=object()))

    def __init__(self, config: PriorityConfig = CONFIG) -> None:
        super().__init__()
        self.vllm_config = SimpleNamespace(additional_config={CARRIER: config.to_dict()})

    def shutdown(self, timeout: float | None = None) -> None: ...
    def check_admission(self, n: int = 1, request_id: str | None = None) -> None: ...


def application(directory: Path, engine: Any, arguments: Namespace = ARGUMENTS) -> FastAPI:
    app = FastAPI()
    endpoint = StatusEndpoint(str(directory / "metrics"))
    endpoint.attach_router(app)
    asyncio.run(endpoint.init_state(engine, app.state, arguments))
    return app


@pytest.fixture
def page(tmp_path: Path) -> Any:
    return TestClient(application(tmp_path, Client())).get("/qllm/")


def test_only_what_is_in_the_page_may_run(page: Any) -> None:
    policy = dict(
        part.split(" ", 1) for part in page.headers["Content-Security-Policy"].split("; ")
    )
    assert policy["default-src"] == "'none'" and policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["form-action"] == policy["base-uri"] == "'none'"
    assert policy["require-trusted-types-for"] == "'script'"
    for tag, least in (("script", 5), ("style", 1)):
        inside = re.findall(rf"<{tag}>(.*?)</{tag}>", page.text, re.DOTALL)
        assert len(inside) >= least and page.text.count(f"<{tag}") == len(inside)
        digests = [base64.b64encode(hashlib.sha256(t.encode()).digest()).decode() for t in inside]
        assert policy[f"{tag}-src"].split() == [f"'sha256-{digest}'" for digest in digests]
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"


def test_nothing_is_fetched_from_elsewhere(page: Any) -> None:
    # The namespace of SVG is a name and no address.
    assert set(re.findall(r"https?://[\w./-]+", page.text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"\s(src|srcset|action|on\w+|style)=", page.text)
    addresses = {a for a in re.findall(r'href="([^"]*)"', page.text) if not a.startswith("data:")}
    # Relative: a proxy may add to the path.
    assert addresses == {"#main", "status", "../metrics"}
    for name in ("innerHTML", "insertAdjacentHTML", "document.write", "eval(", "Storage", "cookie"):
        assert name not in page.text, name


def test_without_a_slash_the_way_is_relative(tmp_path: Path) -> None:
    client = TestClient(application(tmp_path, Client()), follow_redirects=False)
    answer = client.get("/qllm")
    assert answer.status_code == 308 and answer.headers["Location"] == "qllm/"


@pytest.mark.parametrize("strips", [True, False])
def test_behind_a_prefix(tmp_path: Path, strips: bool) -> None:
    app = application(tmp_path, Client())
    client = TestClient(app, root_path="/models/a")
    prefix = "" if strips else "/models/a"
    assert client.get(f"{prefix}/qllm").url.path == f"{prefix}/qllm/"
    assert client.get(f"{prefix}/qllm/status").json()["state"] == "serving"


def test_the_document(tmp_path: Path) -> None:
    client = TestClient(application(tmp_path, Client()))
    answer = client.get("/qllm/status")
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.json()["seconds"] == 60 and answer.json()["models"] == ["/models/<b>bold</b>"]
    Recorder(CONFIG, tmp_path / "metrics.0").running(0, 3)
    assert client.get("/qllm/status").json()["classes"][0]["queue"]["running"] == 3
    named = Namespace(served_model_name=["a", "b"], model="/models/c")
    client = TestClient(application(tmp_path, Client(), named))
    assert client.get("/qllm/status").json()["models"] == ["a", "b"]


@pytest.mark.parametrize("seconds", ["-1", "nan", "inf", "301", "ten", ""])
def test_bad_seconds_are_named(tmp_path: Path, seconds: str) -> None:
    answer = TestClient(application(tmp_path, Client())).get(f"/qllm/status?seconds={seconds}")
    assert answer.status_code == 422 and "seconds" in answer.text


def test_a_server_that_drains_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draining, "NOTICE_SECONDS", 0.0)
    engine = Client()
    client = TestClient(application(tmp_path, engine))
    draining.announce(engine)
    assert client.get("/qllm/status").json()["state"] == "serving"
    engine.shutdown(timeout=5)
    assert client.get("/qllm/status").json()["state"] == "draining"
    engine.errored = True
    assert client.get("/qllm/status").json()["state"] == "engine dead"


def test_a_server_whose_engine_stands_still_says_so(tmp_path: Path) -> None:
    config = PriorityConfig(stall_limit_ms=1)
    client = TestClient(application(tmp_path, Client(config)))
    assert client.get("/qllm/status").json()["stalled_seconds"] == 0
    pulse = Pulse(tmp_path / "metrics.0.pulse")
    pulse.beat(time.monotonic() - 24, busy=True)
    found = client.get("/qllm/status").json()
    assert found["state"] == "stalled" and found["stalled_seconds"] >= 24
    assert found["policy"]["stall_limit_ms"] == 1
    pulse.beat(time.monotonic(), busy=False)
    found = client.get("/qllm/status").json()
    assert (found["state"], found["stalled_seconds"]) == ("serving", 0)


def test_without_an_engine_there_is_no_status(tmp_path: Path) -> None:
    def samplers() -> list[threading.Thread]:
        # Not all threads: one that has answered a request may still be about to end.
        return [thread for thread in threading.enumerate() if thread.name == "qllm-status"]

    before = samplers()
    client = TestClient(application(tmp_path, None))
    assert client.get("/qllm/status").status_code == 503
    assert client.get("/qllm/").status_code == 200
    assert samplers() == before
    application(tmp_path, Client())
    assert len(samplers()) == len(before) + 1
