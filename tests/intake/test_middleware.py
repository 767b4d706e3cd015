# SPDX-License-Identifier: Apache-2.0
"""Bodies: refused while they arrive, read in turns, and what is small never waits."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

from tests.access.access_controls import config_with, tenant_request
from tests.intake.virtual_loop import loop, run
from vllm_qllm.access.access_control import AccessControl
from vllm_qllm.access.route_kind import KINDS
from vllm_qllm.access.tenant_request import SCOPE_KEY
from vllm_qllm.config import PriorityConfig
from vllm_qllm.intake.limits import Limits
from vllm_qllm.intake.middleware import SMALL_BYTES, SMALL_ITEMS, IntakeMiddleware
from vllm_qllm.intake.passage import passage
from vllm_qllm.intake.turns import REST

BYTES, ITEMS = 3 * SMALL_BYTES, 3 * SMALL_ITEMS
LIMITS = Limits.of(
    PriorityConfig.from_dict({"max_body_bytes": BYTES, "max_body_items": ITEMS}), 4096
)
LARGE = json.dumps(["x"] * (2 * SMALL_ITEMS)).encode()


class Client:
    """A connection: the pieces that it sends, and what it is sent."""

    def __init__(self, *pieces: bytes, goes: bool = False) -> None:
        self._pieces, self._goes = list(pieces), goes
        self.left = 0
        self.sent: list[Message] = []

    async def receive(self) -> Message:
        if self._pieces:
            piece = self._pieces.pop(0)
            self.left = len(self._pieces)
            more = bool(self._pieces)
            return {"type": "http.request", "body": piece, "more_body": more}
        if not self._goes:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def text(self) -> str:
        return b"".join(m.get("body", b"") for m in self.sent).decode()


App = Callable[[bytes], Awaitable[None]]


def middleware(app: App) -> IntakeMiddleware:
    async def whole(scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        await app(body)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    return IntakeMiddleware(whole, lambda: LIMITS)


async def nothing(body: bytes) -> None:
    pass


ROUTES = FastAPI()
for route in KINDS:
    method, _, path = route.partition(" ")
    if method == "WEBSOCKET":
        ROUTES.add_api_websocket_route(path, lambda: None)
    elif method != "BELOW":
        ROUTES.add_api_route(path, lambda: None, methods=[method])


def scope(path: str = "/v1/completions", **headers: str) -> Scope:
    raw = [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()]
    return {"type": "http", "method": "POST", "path": path, "headers": raw, "app": ROUTES}


def sent(client: Client, to: Scope | None = None, app: App = nothing) -> Client:
    asyncio.run(middleware(app)(to or scope(), client.receive, client.send))
    return client


def pieces(body: bytes, size: int = 1000) -> Sequence[bytes]:
    return [body[i : i + size] for i in range(0, len(body), size)]


@pytest.mark.parametrize(
    ("fits", "too_large", "limit", "name"),
    [
        (b" " * BYTES, b" " * (BYTES + 1), BYTES, "max_body_bytes"),
        (b"[" * ITEMS, b"[" * (ITEMS + 1), ITEMS, "max_body_items"),
    ],
)
def test_the_limit_fits_and_one_more_is_refused(
    fits: bytes, too_large: bytes, limit: int, name: str
) -> None:
    accepted = sent(Client(*pieces(fits)))
    assert (accepted.status, accepted.text.encode()) == (200, fits)
    refused = sent(Client(*pieces(too_large)))
    assert refused.status == 413
    assert str(limit) in refused.text and name in refused.text


def test_what_comes_after_the_limit_of_bytes_is_not_read() -> None:
    client = sent(Client(*pieces(b" " * (2 * BYTES))))
    assert client.status == 413 and client.left > 10
    assert (b"connection", b"close") in client.sent[0]["headers"]


def test_what_comes_after_the_limit_of_items_is_dropped_so_that_the_answer_is_seen() -> None:
    client = sent(Client(*pieces(b'""' * ITEMS * 10)))
    assert client.status == 413 and client.left == 0
    assert "max_body_items" in client.text
    assert (b"connection", b"close") not in client.sent[0]["headers"]


def test_an_announced_length_is_believed() -> None:
    client = sent(Client(b"x", b"y"), scope(content_length=str(BYTES + 1)))
    assert client.status == 413 and client.left == 0
    assert sent(Client(b"x"), scope(content_length="9" * 5000)).status == 413


def test_parts_of_a_form_are_not_json() -> None:
    body = b'""' * ITEMS
    assert sent(Client(*pieces(body)), scope(content_type="multipart/form-data")).status == 200


@pytest.mark.parametrize("root", ["", "/behind"])
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
def test_anthropic_clients_get_their_form(path: str, root: str) -> None:
    """413 is for bytes; too many parts are a prompt that is too long, which clients shorten."""
    to = scope(root + path) | {"root_path": root}
    bytes_, items = sent(Client(b" " * (BYTES + 1)), to), sent(Client(b"[" * ITEMS), to)
    for client, status, type_ in (
        (bytes_, 413, "request_too_large"),
        (items, 400, "invalid_request_error"),
    ):
        answer = json.loads(client.text)
        assert (client.status, answer["type"], answer["error"]["type"]) == (status, "error", type_)
    message = json.loads(items.text)["error"]["message"]
    most = LIMITS.items_at(path)
    assert re.match(rf"prompt is too long: {ITEMS} .* > {most} maximum .*max_body_items", message)


def test_a_refusal_says_how_much_there_was_and_what_is_allowed_where() -> None:
    many = b'""' * (7 * ITEMS)
    refused = json.loads(sent(Client(*pieces(many)), scope("/v1/responses")).text)["error"]
    assert refused["code"] == 413
    for word in (str(7 * ITEMS), str(LIMITS.items_at("/v1/responses")), "max_body_items", "by 3"):
        assert word in refused["message"]


def test_large_ones_are_read_one_by_one_and_small_ones_beside_them() -> None:
    async def main() -> None:
        reading, go_on = [], asyncio.Event()

        async def app(body: bytes) -> None:
            if body == LARGE:
                reading.append(body)
                await go_on.wait()

        front = middleware(app)

        async def send(body: bytes) -> Client:
            client = Client(body)
            await front(scope(), client.receive, client.send)
            return client

        large = [asyncio.create_task(send(LARGE)) for _ in range(20)]
        await asyncio.sleep(0.01)
        assert len(reading) == 1
        assert (await asyncio.wait_for(send(b'{"small": 1}'), 5)).status == 200
        assert len(reading) == 1
        go_on.set()
        assert {client.status for client in await asyncio.gather(*large)} == {200}

    run(main())


@pytest.mark.parametrize("how", ["urgent", "elsewhere"])
def test_the_next_one_is_read_when_this_one_was(how: str) -> None:
    async def run() -> None:
        reading, never, all_read = [], asyncio.Event(), asyncio.Event()

        async def app(body: bytes) -> None:
            served = passage.get()
            assert served is not None and served.level == 0
            reading.append(body)
            if len(reading) == 3:
                all_read.set()
            served.classed(0) if how == "urgent" else served.was_read()
            await never.wait()

        front = middleware(app)
        tasks = []
        for _ in range(3):
            client = Client(LARGE)
            tasks.append(asyncio.create_task(front(scope(), client.receive, client.send)))
        await asyncio.wait_for(all_read.wait(), 10)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(run())


def test_who_goes_away_while_waiting_is_not_served() -> None:
    async def main() -> None:
        reading, go_on = [], asyncio.Event()

        async def app(body: bytes) -> None:
            reading.append(body)
            await go_on.wait()

        front = middleware(app)
        first, gone, last = Client(LARGE), Client(LARGE, goes=True), Client(LARGE)
        serving = asyncio.create_task(front(scope(), first.receive, first.send))
        await asyncio.sleep(0.01)
        await asyncio.wait_for(front(scope(), gone.receive, gone.send), 5)
        go_on.set()
        await serving
        await asyncio.wait_for(front(scope(), last.receive, last.send), 10)
        assert (len(reading), gone.sent, last.status) == (2, [], 200)

    run(main())


def said(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields | {"list": ["x"] * (2 * SMALL_ITEMS)}).encode()


URGENT = {"x_vllm_priority": "-3"}
# Tenant, headers, body; whether it is read before those of the class "batch" that came earlier.
BEFORE = [
    (None, URGENT, LARGE, True),
    (None, {"x_vllm_priority": "50"}, said({"priority": -3}), False),
    (None, {}, said({"priority": -3}), True),
    (None, {}, said({"extra_body": {"service_tier": "priority"}}), True),
    (None, {}, said({"service_tier": "flex"}), False),
    (None, {}, said({"priority": -3, "tools": [{"priority": 50}]}), True),
    (None, {}, said({"prompt": '"priority": 50'}), True),
    (None, {}, LARGE, True),  # the class of priority 0
    ("chat", URGENT, LARGE, True),
    ("chat", {}, LARGE, True),
    ("batch", URGENT, LARGE, False),
    ("batch", {}, said({"priority": -3}), False),
    ("lowered", URGENT, LARGE, False),
    ("lowered", {}, LARGE, False),
]
TENANTS = {
    "chat": {"classes": {"chat": {}, "batch": {}}, "default_class": "chat"},
    "batch": {"classes": {"batch": {}}},
    "lowered": {"classes": {"batch": {}}, "above": "lower"},
}


@pytest.mark.parametrize(("tenant", "headers", "body", "before"), BEFORE)
def test_the_most_urgent_is_read_first_and_nobody_is_by_a_claim_alone(
    tmp_path: Path, tenant: str | None, headers: dict[str, str], body: bytes, before: bool
) -> None:
    config = config_with(tmp_path, TENANTS)
    limits, access = Limits.of(config, 4096), AccessControl(config, None)

    async def main() -> list[bytes]:
        order: list[bytes] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            order.append((await receive())["body"])
            loop().work(0.1)
            await asyncio.sleep(0)

        front = IntakeMiddleware(app, lambda: limits)

        async def send(tenant: str | None, headers: dict[str, str], body: bytes) -> None:
            own = {} if tenant is None else {SCOPE_KEY: tenant_request(access, tenant)}
            client = Client(body)
            await front(scope(**headers) | own, client.receive, client.send)

        batch = [asyncio.ensure_future(send("batch", {}, b"[" + LARGE + b"]")) for _ in range(4)]
        await asyncio.sleep(0)
        began = loop().time()
        await send(tenant, headers, body)
        if before:  # one piece of another one and its own, and no rest
            assert loop().time() - began <= 0.2 + 1e-9
        await asyncio.gather(*batch)
        return order

    order = run(main())
    assert len(order) == 5
    assert (order.index(body) <= 1) == before


def test_what_turns_out_to_be_less_urgent_takes_the_rest_of_its_class() -> None:
    async def main() -> float:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            served = passage.get()
            assert served is not None
            loop().work(0.1)
            served.classed(1)

        front = IntakeMiddleware(app, lambda: LIMITS)
        expected_urgent, less = Client(LARGE), Client(said({"priority": 10}))
        await front(scope(), expected_urgent.receive, expected_urgent.send)
        await front(scope(), less.receive, less.send)
        return loop().time()

    assert run(main()) == pytest.approx(0.1 + REST * 0.1 + 0.1)


@pytest.mark.parametrize("ticks", [1, 2, 3, 4, 5, 6])
def test_who_is_cancelled_while_waiting_keeps_no_turn(ticks: int) -> None:
    """The server ends a task at any point of its wait, also as its turn comes."""

    async def main() -> None:
        first_may_end = asyncio.Event()
        entered = 0

        async def app(body: bytes) -> None:
            nonlocal entered
            entered += 1
            if entered == 1:
                await first_may_end.wait()

        served = middleware(app)

        def begin() -> asyncio.Task[None]:
            client = Client(LARGE)
            return asyncio.ensure_future(served(scope(), client.receive, client.send))

        first = begin()
        await asyncio.sleep(0.01)
        second = begin()
        await asyncio.sleep(0.01)
        first_may_end.set()
        for _ in range(ticks):
            await asyncio.sleep(0)
        second.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
        await asyncio.wait_for(begin(), 5)

    run(main())


def test_a_server_without_limits_reads_nothing() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert passage.get() is None
        await send(await receive())

    client = Client(b"x")
    asyncio.run(IntakeMiddleware(app, lambda: None)(scope(), client.receive, client.send))
    assert client.sent[0]["body"] == b"x"


def test_a_refused_tenant_is_told_so_as_for_its_other_refusals(tmp_path: Path) -> None:
    access = AccessControl(config_with(tmp_path, {"a": {"classes": {"agent": {}}}}), None)
    of_a = tenant_request(access, "a")
    client = sent(Client(b" " * (BYTES + 1)), scope() | {SCOPE_KEY: of_a})
    assert client.status == 413
    assert of_a.refusal is not None and of_a.refusal.reason == "body"


@pytest.mark.parametrize("is_tenant", [True, False])
def test_an_operator_waits_for_nobody(tmp_path: Path, is_tenant: bool) -> None:
    """Without tenants anybody may ask what an operator may."""
    config = config_with(tmp_path, {"op": {"classes": {"batch": {}}, "operator": True}})
    access = AccessControl(config, None)

    async def main() -> bool:
        reading: list[bytes] = []

        async def app(body: bytes) -> None:
            reading.append(body)
            await asyncio.sleep(1.0)

        front = middleware(app)
        first = Client(LARGE)
        serving = asyncio.ensure_future(front(scope(), first.receive, first.send))
        await asyncio.sleep(0.01)
        to = scope("/update_weights")
        if is_tenant:
            of_op = tenant_request(access, "op")
            of_op.route = "POST /update_weights"
            to |= {SCOPE_KEY: of_op}
        client = Client(LARGE)
        asking = asyncio.ensure_future(front(to, client.receive, client.send))
        await asyncio.sleep(0.01)
        came = len(reading) == 2
        await asyncio.gather(serving, asking)
        return came

    assert run(main()) == is_tenant
