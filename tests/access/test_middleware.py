# SPDX-License-Identifier: Apache-2.0
"""What the middleware does before and after the application: places, bodies, web sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send
from vllm.sampling_params import SamplingParams

from tests.access.access_controls import config_with
from vllm_qllm.access import access_control
from vllm_qllm.access.middleware import AccessMiddleware
from vllm_qllm.config import CARRIER, PriorityConfig

LIMITS = {"agent": {"max_concurrent": 1}}
TENANTS = {"a": {"classes": LIMITS, "operator": True}, "b": {"classes": {"batch": {}}}}


@pytest.fixture
def config(tmp_path: Path) -> Iterator[PriorityConfig]:
    yield config_with(tmp_path, TENANTS, max_body_bytes=1024)
    access_control._access = None


def routes() -> FastAPI:
    """An application that has the routes that are asked for here."""
    app = FastAPI()

    async def nothing() -> None:
        raise AssertionError("the middleware's own application answers")

    for path in ("/health", "/v1/models"):
        app.get(path)(nothing)
    for path in ("/v1/completions", "/v1/messages"):
        app.post(path)(nothing)
    app.websocket("/v1/realtime")(nothing)
    return app


class Engine:
    """As much of an engine's client as the middleware looks at."""

    def __init__(self, config: PriorityConfig) -> None:
        self.vllm_config = SimpleNamespace(additional_config={CARRIER: config.to_dict()})

    async def generate(
        self, prompt: Any, sampling_params: Any, request_id: str, *, priority: int = 0
    ) -> AsyncGenerator[Any, None]:
        yield priority

    encode = generate


class Client:
    """A connection: what it sends, and what it was sent."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self.messages, self.sent = list(messages), []

    async def receive(self) -> dict[str, Any]:
        return self.messages.pop(0) if self.messages else {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])


def scope(kind: str, path: str, key: str = "a", *headers: tuple[bytes, bytes]) -> Scope:
    sent = [(b"authorization", f"Bearer {key}".encode()), *headers]
    method = "GET" if path in ("/health", "/v1/models") else "POST"
    asked = {"type": kind, "path": path, "headers": sent, "root_path": "", "app": routes()}
    return asked | ({"method": method} if kind == "http" else {})


def started(app: Any, config: PriorityConfig) -> AccessMiddleware:
    """The middleware before an application, after the server's start."""
    engine = Engine(config)
    server = SimpleNamespace(state=SimpleNamespace(engine_client=engine))

    async def outer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await app(scope, receive, send)

    middleware = AccessMiddleware(outer)
    middleware.engine = engine  # type: ignore[attr-defined]
    client = Client()
    asyncio.run(middleware({"type": "lifespan", "app": server}, client.receive, client.send))
    return middleware


def active() -> float:
    access = access_control.this_access()
    assert access is not None
    return access.limiter.numbers("a", "agent")[0]


async def ok(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})


def test_nobody_comes_in_before_the_start() -> None:
    client = Client()
    with pytest.raises(RuntimeError, match="not started"):
        asyncio.run(AccessMiddleware(ok)(scope("http", "/health"), client.receive, client.send))
    assert not client.sent


def test_a_file_that_broke_during_the_start_ends_it(config: PriorityConfig) -> None:
    Path(str(config.tenants)).write_text("{")
    server = SimpleNamespace(state=SimpleNamespace(engine_client=Engine(config)))
    client = Client({"type": "lifespan.startup"})
    asyncio.run(
        AccessMiddleware(ok)({"type": "lifespan", "app": server}, client.receive, client.send)
    )
    assert client.sent[0]["type"] == "lifespan.startup.failed"
    assert "tenants.json" in client.sent[0]["message"]


@pytest.mark.parametrize("end", ["returns", "raises", "is cancelled"])
def test_a_place_is_given_back_however_it_ends(config: PriorityConfig, end: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert active() == 1
        if end == "raises":
            raise ValueError(end)
        if end == "is cancelled":
            await asyncio.sleep(3600)

    async def ask() -> None:
        client = Client()
        running = asyncio.create_task(
            middleware(scope("websocket", "/v1/realtime"), client.receive, client.send)
        )
        await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    middleware = started(app, config)
    asyncio.run(ask())
    assert active() == 0


def test_web_sockets_are_refused_before_they_open(config: PriorityConfig) -> None:
    client = Client()
    asyncio.run(
        started(ok, config)(
            scope("websocket", "/v1/realtime", "wrong"), client.receive, client.send
        )
    )
    assert client.sent == [{"type": "websocket.close", "code": 1008, "reason": "unknown_key"}]


@pytest.mark.parametrize(("key", "priority"), [("a", 0), ("b", 10)])
def test_what_says_no_class_runs_in_the_default_class(
    config: PriorityConfig, key: str, priority: int
) -> None:
    """vLLM runs what comes by a web socket with priority 0, which is of class agent here."""
    got = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        access = access_control.this_access()
        assert access is not None
        got.append([o async for o in engine.generate("hi", SamplingParams(n=1), "id")])
        got.append(access.limiter.numbers(key, {"a": "agent", "b": "batch"}[key])[0])

    middleware = started(app, config)
    engine = middleware.engine  # type: ignore[attr-defined]
    client = Client()
    asked = scope("websocket", "/v1/realtime", key)
    asyncio.run(middleware(asked, client.receive, client.send))
    assert got == [[priority], 1]


def test_a_long_body_is_not_handed_on(config: PriorityConfig) -> None:
    """An application that answers what it has read of it is not heard."""
    seen = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] != "http.disconnect":
            seen.append(len(message["body"]))
        await send({"type": "http.response.start", "status": 400, "headers": []})
        await send({"type": "http.response.body", "body": b"half"})

    piece = {"type": "http.request", "body": b"a" * 500, "more_body": True}
    client = Client(*[piece] * 5)
    path = "/v1/completions"
    asyncio.run(started(app, config)(scope("http", path), client.receive, client.send))
    assert client.status == 413 and seen == [500, 500]
    assert b"half" not in client.sent[1]["body"]


@pytest.mark.parametrize("said", ["1025", "9" * 6000, "0" * 30 + "2000"])
def test_a_body_that_says_it_is_long_is_not_read(config: PriorityConfig, said: str) -> None:
    client = Client()
    sent = scope("http", "/v1/completions", "a", (b"content-length", said.encode()))
    asyncio.run(started(ok, config)(sent, client.receive, client.send))
    assert client.status == 413


def test_browsers_may_ask_before_they_ask(config: PriorityConfig) -> None:
    client = Client()
    asked = scope("http", "/v1/completions", "wrong") | {"method": "OPTIONS"}
    asyncio.run(started(ok, config)(asked, client.receive, client.send))
    assert client.status == 200


def test_a_tenant_that_goes_while_its_request_comes(
    config: PriorityConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request is known and served by one state of the file, not by two."""
    middleware = started(ok, config)
    access = access_control.this_access()
    assert access is not None
    states = [access.tenants_config, access.tenants_config.model_copy(update={"tenants": {}})]
    monkeypatch.setattr(
        access_control.AccessControl, "tenants_config", property(lambda _: states.pop(0))
    )
    client = Client()
    asyncio.run(middleware(scope("http", "/v1/models"), client.receive, client.send))
    assert client.status == 200


def test_errors_are_those_of_the_api_behind_any_prefix(config: PriorityConfig) -> None:
    for root, path in (("", "/v1/messages"), ("/api", "/api/v1/messages"), ("/", "/v1/messages")):
        client = Client()
        asked = scope("http", path, "wrong") | {"root_path": root}
        asyncio.run(started(ok, config)(asked, client.receive, client.send))
        assert client.status == 401
        assert json.loads(client.sent[1]["body"])["type"] == "error", path


@pytest.mark.parametrize(
    ("root", "path"),
    [("", "/health"), ("/", "/health"), ("/api/", "/health"), ("/api", "/api/health")],
)
def test_probes_need_no_key_behind_any_prefix(config: PriorityConfig, root: str, path: str) -> None:
    client = Client()
    asked = scope("http", path, "wrong") | {"root_path": root, "method": "GET"}
    asyncio.run(started(ok, config)(asked, client.receive, client.send))
    assert client.status == 200
