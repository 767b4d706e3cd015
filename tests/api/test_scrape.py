# SPDX-License-Identifier: Apache-2.0
"""``/metrics`` says what it always said, and never keeps the event loop for long."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from vllm.entrypoints.serve.instrumentator import metrics

from tests.access.access_controls import config_with, tenant_request
from vllm_qllm.access import access_control
from vllm_qllm.access.access_control import AccessControl
from vllm_qllm.access.collector import AccessCollector
from vllm_qllm.access.refusal import Refusal
from vllm_qllm.api.scrape import ScrapeEndpoint, in_pieces
from vllm_qllm.intake.stepwise import stepwise

TENANTS = 1000
CLASSES = {"chat": -3, "agent": 0, "batch": 50}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Of a server where every tenant has used everything."""
    directory = tmp_path_factory.mktemp("tenants")
    tenants = {f"t{n}": {"classes": {cls: {} for cls in CLASSES}} for n in range(TENANTS)}
    access = AccessControl(config_with(directory, tenants), directory / "table")
    for tenant in tenants:
        for cls, priority in CLASSES.items():
            asking = tenant_request(access, tenant)
            assert asking.ask(priority, 1) == priority
            asking.close()
            access.limiter.count_refusal(tenant, Refusal("rate", "", cls))
    registry = CollectorRegistry()
    # With samples that the text has in another place, and without any.
    Histogram("seconds", "of something", ["of"], registry=registry).labels("a").observe(3)
    Counter("things", "of a kind", ["kind"], registry=registry)
    registry.register(AccessCollector())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(access_control, "_access", access)
        yield registry


class Longest:
    """The longest step's own time of the processor."""

    def __init__(self) -> None:
        self.seconds = self._since = 0.0

    def begin(self) -> bool:
        self._since = time.thread_time()
        return True

    def pause(self) -> None:
        self.seconds = max(self.seconds, time.thread_time() - self._since)

    def must_stop(self) -> None:
        pass


def test_the_text_is_that_of_the_library(registry: CollectorRegistry) -> None:
    text = asyncio.run(in_pieces(registry))
    assert text == generate_latest(registry)
    assert text.count(b"\nqllm_tenant_requests_total{") == TENANTS * len(CLASSES)


def whole(registry: CollectorRegistry) -> float:
    """Seconds of the processor that all of it takes."""
    began = time.thread_time()
    generate_latest(registry)
    return time.thread_time() - began


def test_no_piece_takes_long(registry: CollectorRegistry) -> None:
    longest = Longest()
    asyncio.run(stepwise(in_pieces(registry), longest))
    assert 0 < longest.seconds < whole(registry) / 10


@pytest.mark.parametrize("path", ["/metrics", "/metrics/"])
def test_it_answers_in_place_of_the_route(
    registry: CollectorRegistry, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "get_prometheus_registry", lambda: registry)
    stock, ours = FastAPI(), FastAPI()
    for app in (stock, ours):
        metrics.attach_router(app)
    ScrapeEndpoint().attach_router(ours)
    longest = Longest()

    async def scrape(scope: Any, receive: Any, send: Any) -> None:
        await stepwise(ours(scope, receive, send), longest)

    theirs, answer = TestClient(stock).get(path), TestClient(scrape).get(path)
    assert (answer.status_code, answer.text) == (200, theirs.text)
    assert 0 < longest.seconds < whole(registry) / 5
    assert answer.headers["content-type"] == theirs.headers["content-type"]
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    for other in ({"params": {"name[]": "things_total"}}, {"headers": accept}):
        texts = {TestClient(app).get("/metrics/", **other).text for app in (stock, ours)}
        assert len(texts) == 1 and texts != {theirs.text}


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Any:
    """An application, and the texts that were asked for."""
    asked: list[int] = []

    class Counted(CollectorRegistry):
        def collect(self) -> Any:
            asked.append(1)
            return super().collect()

    registry = Counted()
    Counter("things", "of a kind", registry=registry)
    monkeypatch.setattr(metrics, "get_prometheus_registry", lambda: registry)
    app = FastAPI()
    metrics.attach_router(app)
    ScrapeEndpoint().attach_router(app)
    asked.clear()
    return app, asked


@pytest.mark.parametrize("path", ["/metrics", "/metrics/", "/metrics/x", "/metrics?name[]=things"])
@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE", "OPTIONS", "ODD"])
def test_no_text_is_made_for_who_does_not_ask_for_one(counted: Any, path: str, method: str) -> None:
    app, asked = counted
    answer = TestClient(app).request(method, path)
    assert answer.status_code == (200 if method == "HEAD" else 405)
    assert (answer.content, asked) == (b"", [])
    if method == "HEAD":
        assert answer.headers["content-type"].startswith("text/plain")


def test_who_comes_while_a_text_is_made_gets_that(counted: Any) -> None:
    app, asked = counted

    async def get() -> tuple[int, bytes]:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": "/metrics", "headers": []}
        await app(scope | {"query_string": b""}, asyncio.Event().wait, send)
        return sent[0]["status"], sent[1]["body"]

    async def main() -> set[tuple[int, bytes]]:
        waiting = [asyncio.ensure_future(get()) for _ in range(40)]
        await asyncio.sleep(0)
        waiting.pop(0).cancel()  # who goes away takes it from nobody
        answers = set(await asyncio.gather(*waiting))
        assert len(asked) == 1
        await get()
        assert len(asked) == 2
        return answers

    [(status, text)] = asyncio.run(main())
    assert status == 200 and b"things_total 0.0" in text
