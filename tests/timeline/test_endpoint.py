# SPDX-License-Identifier: Apache-2.0
"""The route is there when it is asked for, and says what is wrong with a ring."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import httpx
import pytest
import vllm.plugins
from fastapi import FastAPI
from fastapi.testclient import TestClient
from vllm.plugins.endpoint_plugins.interface import EndpointPlugin

from vllm_qllm.config import PriorityConfig
from vllm_qllm.endpoints import endpoints
from vllm_qllm.metrics import location
from vllm_qllm.timeline.document import Parts
from vllm_qllm.timeline.endpoint import MAX_READERS, PATH, TimelineEndpoint
from vllm_qllm.timeline.location import ring_path
from vllm_qllm.timeline.log import open_log


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has prepared nothing, before and after."""
    monkeypatch.setenv(location.VARIABLE, "")
    monkeypatch.setattr(location, "_prepared", None)


@pytest.mark.parametrize("timeline", [False, 2048])
def test_only_when_it_is_asked_for(timeline: int) -> None:
    assert endpoints() == []  # no policy
    location.prepare(PriorityConfig(timeline=timeline))
    found = endpoints()
    assert [plugin.name for plugin in found].count("qllm_timeline") == bool(timeline)
    assert all(isinstance(plugin, EndpointPlugin) for plugin in found)


def test_vllm_finds_it() -> None:
    from vllm_qllm.plugin import register

    register()
    assert vllm.plugins.load_endpoint_plugins(("generate",)) == []
    location.prepare(PriorityConfig(timeline=2048))
    found = [p.name for p in vllm.plugins.load_endpoint_plugins(("generate",))]
    assert found.count("qllm_timeline") == 1


def application(directory: Path) -> FastAPI:
    app = FastAPI()
    TimelineEndpoint(str(directory / "metrics")).attach_router(app)
    return app


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    return TestClient(application(tmp_path))


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


def full(path: Path, events: int = 4096) -> Path:
    """A ring in which something is recorded everywhere."""
    log = open_log(PriorityConfig(timeline=events), path / "timeline.0")
    assert log is not None
    for number in range(events):
        log.queue(1, number, 2, 3, time.monotonic())
    return path


def test_requests_go_on_while_a_long_answer_is_written(tmp_path: Path) -> None:
    endpoint = application(full(tmp_path, 16384))

    async def run() -> tuple[float, int]:
        transport = httpx.ASGITransport(endpoint)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            task = asyncio.create_task(client.get(PATH))
            longest, last = 0.0, time.perf_counter()
            while not task.done():
                await asyncio.sleep(0)
                longest, last = max(longest, time.perf_counter() - last), time.perf_counter()
            return longest, len(task.result().json()["engines"][0]["events"])

    asyncio.run(run())  # whatever is done once
    longest, events = asyncio.run(run())
    assert events == 16384 - 1  # the oldest one may be about to be overwritten
    started = time.perf_counter()
    b"".join(Parts(str(tmp_path / "metrics"), 10.0))
    assert longest < (time.perf_counter() - started) / 2, "it is written in one part"


def test_no_more_readers_than_can_be_answered(tmp_path: Path) -> None:
    endpoint = application(full(tmp_path))

    async def run() -> list[httpx.Response]:
        transport = httpx.ASGITransport(endpoint)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            many = await asyncio.gather(*(client.get(PATH) for _ in range(3 * MAX_READERS)))
            return [*many, await client.get(PATH)]

    *many, later = asyncio.run(run())
    refused = [answer for answer in many if answer.status_code == 503]
    assert len(refused) == 2 * MAX_READERS
    assert all(answer.headers["Retry-After"] == "1" for answer in refused)
    assert f"allowed: {MAX_READERS} at a time" in refused[0].json()["detail"]
    assert {answer.status_code for answer in many} == {200, 503}
    assert later.status_code == 200


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


def test_only_what_is_new(client: TestClient, tmp_path: Path) -> None:
    log = open_log(PriorityConfig(timeline=1024), tmp_path / "timeline.0")
    assert log is not None
    now = time.monotonic()

    def ask(after: int) -> tuple[list[int], bool]:
        (engine,) = client.get(PATH, params={"seconds": 600, "after": after}).json()["engines"]
        return [event["number"] for event in engine["events"]], engine["complete"]

    assert ask(0) == ([], True)
    for n in range(10):
        log.queue(1, n + 1, 2, 3, now)
    assert ask(0) == (list(range(1, 11)), True)
    assert ask(7) == ([8, 9, 10], True)
    assert ask(10) == ([], True) and ask(99) == ([], True)
    for n in range(2000):
        log.queue(1, n, 2, 3, now)
    numbers, complete = ask(10)
    assert numbers[0] > 11 and not complete, "some are gone"
    assert ask(2005) == ([2006, 2007, 2008, 2009, 2010], True)
    assert client.get(PATH, params={"after": -1}).status_code == 422


def test_off_nothing_is_opened() -> None:
    location.prepare(PriorityConfig())
    assert open_log(PriorityConfig(), ring_path()) is None
    assert open_log(PriorityConfig(timeline=1024), None) is None
