# SPDX-License-Identifier: Apache-2.0
"""Bodies: refused while they arrive, read in turns, and what is small never waits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from tests.access.gates import config_with, visit
from vllm_qllm.access.gate import Gate
from vllm_qllm.access.visit import SCOPE_KEY
from vllm_qllm.config import PriorityConfig
from vllm_qllm.intake.limits import Limits
from vllm_qllm.intake.middleware import SMALL_BYTES, SMALL_ITEMS, IntakeMiddleware
from vllm_qllm.intake.passage import passage

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


def scope(path: str = "/v1/completions", **headers: str) -> Scope:
    raw = [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()]
    return {"type": "http", "method": "POST", "path": path, "headers": raw}


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


def test_anthropic_clients_get_their_form() -> None:
    client = sent(Client(b" " * (BYTES + 1)), scope("/v1/messages"))
    assert json.loads(client.text)["type"] == "error"


def test_large_ones_are_read_one_by_one_and_small_ones_beside_them() -> None:
    async def run() -> None:
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

    asyncio.run(run())


@pytest.mark.parametrize("how", ["urgent", "elsewhere"])
def test_the_next_one_is_read_when_this_one_was(how: str) -> None:
    async def run() -> None:
        reading, never, all_read = [], asyncio.Event(), asyncio.Event()

        async def app(body: bytes) -> None:
            served = passage.get()
            assert served is not None and served.level == 1
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
    async def run() -> None:
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

    asyncio.run(run())


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

    asyncio.run(main())


def test_a_server_without_limits_reads_nothing() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert passage.get() is None
        await send(await receive())

    client = Client(b"x")
    asyncio.run(IntakeMiddleware(app, lambda: None)(scope(), client.receive, client.send))
    assert client.sent[0]["body"] == b"x"


def test_a_refused_tenant_is_told_so_as_for_its_other_refusals(tmp_path: Path) -> None:
    gate = Gate(config_with(tmp_path, {"a": {"classes": {"agent": {}}}}), None)
    of_a = visit(gate, "a")
    client = sent(Client(b" " * (BYTES + 1)), scope() | {SCOPE_KEY: of_a})
    assert client.status == 413
    assert of_a.refusal is not None and of_a.refusal.reason == "body"
