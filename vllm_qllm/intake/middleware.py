# SPDX-License-Identifier: Apache-2.0
"""The innermost layer of the HTTP server: a body is counted before anybody makes objects of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from http import HTTPMethod

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vllm_qllm.access.refusal import Refusal
from vllm_qllm.access.route import path_of, route_of
from vllm_qllm.access.route_kind import RouteKind, kind_of
from vllm_qllm.access.tenant_request import TenantRequest, tenant_request_in
from vllm_qllm.intake.expected import expected_level
from vllm_qllm.intake.json_size import JsonSize
from vllm_qllm.intake.limits import Limits
from vllm_qllm.intake.passage import Passage, passage
from vllm_qllm.intake.turns import Turn, Turns, withdraw

# What is smaller in both respects costs the event loop well below a millisecond.
SMALL_BYTES, SMALL_ITEMS = 2**16, 2**8
WITHOUT_BODY = (HTTPMethod.GET, HTTPMethod.HEAD, HTTPMethod.OPTIONS)


class IntakeMiddleware:
    """Refuses bodies that are too large, and lets large ones be read one after the other.

    Args:
        app: the application.
        limits: asked for with each request; None while the server has none.
    """

    def __init__(self, app: ASGIApp, limits: Callable[[], Limits | None]) -> None:
        self._app, self._limits = app, limits
        self._turns = Turns()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        limits = self._limits()
        if (
            limits is None
            or scope["type"] not in ("http", "websocket")
            or scope.get("method") in WITHOUT_BODY
        ):
            await self._app(scope, receive, send)
            return
        tenant_request = tenant_request_in(scope)
        route = route_of(scope) if tenant_request is None else tenant_request.route
        body = _Body(limits, route, Headers(scope=scope))
        if scope["type"] == "http":  # what comes by a websocket has no end
            if not await body.read(receive):
                return  # the client has gone
            if body.refusal is not None:
                await _answer(body, body.refusal, tenant_request, route, scope, receive, send)
                return
        level = expected_level(limits.config, route, tenant_request, body.headers, body.whole)
        served = Passage(limits, level)
        token = passage.set(served)
        try:
            if not body.is_small and not _by_operator(route, tenant_request):
                async with _unless_gone(receive) as gone:
                    patience = limits.config.classes[level].max_wait_ms / 1000
                    served.turn = await self._turn_unless(gone, level, patience)
                if served.turn is None:
                    return
            work = self._app(scope, body.again(receive), _noticed(served, send))
            await served.served(work)
        finally:
            served.was_read()
            passage.reset(token)

    async def _turn_unless(
        self, gone: asyncio.Future[Message], level: int, patience: float
    ) -> Turn | None:
        """One's turn; None if the client goes away before."""
        asked = self._turns.ask(level, patience)
        try:
            await asyncio.wait((asked, gone), return_when=asyncio.FIRST_COMPLETED)
        except BaseException:  # by the server, when nobody is there to use a turn
            withdraw(asked)
            raise
        if asked.done():
            return asked.result()
        withdraw(asked)
        return None


def _by_operator(route: str, tenant_request: TenantRequest | None) -> bool:
    """Whether the server's operator asks, who waits for nobody: its new weights are for all.

    Without tenants anybody may ask that.
    """
    return tenant_request is not None and kind_of(route) is RouteKind.OPERATOR


class _Body:
    """Reads a body, as far as it is not too large."""

    def __init__(self, limits: Limits, route: str, headers: Headers) -> None:
        self._limits, self._path, self.headers = limits, path_of(route), headers
        # Of a form the parts are files, and FastAPI reads them as they come.
        self._counts = not headers.get("content-type", "").lower().startswith("multipart/")
        self._size = JsonSize()
        self._messages: list[Message] = []
        self.refusal: Refusal | None = None
        self.is_too_long = False
        announced = headers.get("content-length", "")
        if announced.isdecimal():
            self._check_bytes(int(announced[:20]))  # int() refuses thousands of digits

    @property
    def is_small(self) -> bool:
        return self._size.length <= SMALL_BYTES and self._size.items <= SMALL_ITEMS

    async def read(self, receive: Receive) -> bool:
        """Keep the whole body, or find out why it is refused; False when the client went away.

        What follows the limit of items is received and dropped, as a client that still sends may
        never see an answer; what follows the limit of bytes is not.
        """
        while not self.is_too_long:
            message = await receive()
            if message["type"] != "http.request":
                return False
            self._count(message.get("body", b""))
            if self.refusal is None:
                self._messages.append(message)
            else:
                self._messages.clear()
            if not message.get("more_body", False):
                break
        return True

    def again(self, receive: Receive) -> Receive:
        """What gives the application the messages that were read, then those that come."""
        messages = iter(self._messages)
        self._messages = []

        async def received() -> Message:
            message = next(messages, None)
            return await receive() if message is None else message

        return received

    def whole(self) -> bytes:
        """All that was read, if it is JSON."""
        if not self._counts:
            return b""
        return b"".join(message.get("body", b"") for message in self._messages)

    def _count(self, piece: bytes) -> None:
        if self._counts and not self.is_too_long:
            self._size.feed(piece)
        else:
            self._size.length += len(piece)
        self._check_bytes(self._size.length)
        # It is counted to its end, as whoever reads the answer wants to know how much it was.
        problem = self._limits.items_problem(self._path, self._size.items)
        if problem is not None and not self.is_too_long:
            self.refusal = Refusal("items", problem)

    def _check_bytes(self, count: int) -> None:
        most = self._limits.body_bytes
        if count > most:
            text = f"the body has {count} bytes; allowed: {most} (max_body_bytes)"
            self.refusal, self.is_too_long = Refusal("body", text), True


@contextlib.asynccontextmanager
async def _unless_gone(receive: Receive):  # type: ignore[no-untyped-def]
    """A future that is done when the client goes away; its whole body has been read."""
    gone = asyncio.ensure_future(receive())
    try:
        yield gone
    finally:
        gone.cancel()
        await asyncio.wait((gone,))  # which a cancellation of this task itself ends
        if not gone.cancelled():
            gone.result()


def _noticed(served: Passage, send: Send) -> Send:
    """Sends, and notices when there is something to be sent: then it has been read."""

    async def noticed(message: Message) -> None:
        if message["type"] == "http.response.body":
            served.was_read()
        await send(message)

    return noticed


async def _answer(
    body: _Body,
    refusal: Refusal,
    tenant_request: TenantRequest | None,
    route: str,
    scope: Scope,
    receive: Receive,
    send: Send,
) -> None:
    if tenant_request is not None:
        tenant_request.refuse(refusal)  # counted and written down as its other ones are
    path = path_of(route)
    headers = {"Connection": "close"} if body.is_too_long else {}
    response = JSONResponse(refusal.body_at(path), refusal.status_at(path), headers=headers)
    await response(scope, receive, send)
