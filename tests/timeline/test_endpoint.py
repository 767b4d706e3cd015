# SPDX-License-Identifier: Apache-2.0
"""The route is there when it is asked for, and says what is wrong with a ring."""

from __future__ import annotations

from pathlib import Path

import pytest
import vllm.plugins
from fastapi import FastAPI
from fastapi.testclient import TestClient
from vllm.plugins.endpoint_plugins.interface import EndpointPlugin

from vllm_qllm.api.endpoints import endpoints
from vllm_qllm.config import PriorityConfig
from vllm_qllm.metrics import location
from vllm_qllm.timeline.endpoint import PATH, TimelineEndpoint
from vllm_qllm.timeline.location import ring_path
from vllm_qllm.timeline.log import open_log


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has prepared nothing, before and after."""
    monkeypatch.setenv(location.VARIABLE, "")
    monkeypatch.setattr(location, "_prepared", None)


@pytest.mark.parametrize("timeline", [False, 2048])
def test_only_when_it_is_asked_for(timeline: int) -> None:
    location.prepare(PriorityConfig(timeline=timeline))
    found = endpoints()
    assert len(found) == (1 if timeline else 0)
    assert all(isinstance(plugin, EndpointPlugin) for plugin in found)


def test_vllm_finds_it() -> None:
    from vllm_qllm.plugin import register

    register()
    location.prepare(PriorityConfig(timeline=2048))
    assert [p.name for p in vllm.plugins.load_endpoint_plugins(("generate",))] == ["qllm_timeline"]
    location.prepare(PriorityConfig())
    assert vllm.plugins.load_endpoint_plugins(("generate",)) == []


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    app = FastAPI()
    TimelineEndpoint(str(tmp_path / "metrics")).attach_router(app)
    return TestClient(app)


def test_before_an_engine_records_there_is_none(client: TestClient) -> None:
    assert client.get(PATH).json() == {
        "format": "vllm-qllm timeline",
        "version": 1,
        "seconds": 10.0,
        "engines": [],
    }


def test_a_ring_of_another_version_is_said(client: TestClient, tmp_path: Path) -> None:
    (tmp_path / "timeline.0").write_bytes(b"something else")
    answer = client.get(PATH)
    assert answer.status_code == 503
    assert "timeline.0 is no timeline of this version" in answer.json()["detail"]


def test_events_of_each_engine(client: TestClient, tmp_path: Path) -> None:
    config = PriorityConfig(timeline=1024)
    for index in range(2):
        log = open_log(config, tmp_path / f"timeline.{index}")
        assert log is not None
        log.queue(1, index, 2, 3, 4.5)
        log.queue(1, index, 2, 3, 4.6)  # as before: nothing new
    found = client.get(PATH, params={"seconds": 5}).json()
    assert [e["engine"] for e in found["engines"]] == [0, 1]
    for index, engine in enumerate(found["engines"]):
        assert engine["classes"] == ["latency_sensitive", "best_effort"]
        assert engine["now"] - engine["start"] == pytest.approx(5)
        (event,) = engine["events"]
        assert event == {
            "number": 1,
            "time": 4.5,
            "kind": "queue",
            "class": "best_effort",
            "waiting": index,
            "running": 2,
            "suspended": 3,
        }


def test_off_nothing_is_opened() -> None:
    location.prepare(PriorityConfig())
    assert open_log(PriorityConfig(), ring_path()) is None
    assert open_log(PriorityConfig(timeline=1024), None) is None
