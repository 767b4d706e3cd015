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
from vllm_qllm.access.visit import SCOPE_KEY, Visit
from vllm_qllm.intake.json_size import COMMAS, JsonSize
from vllm_qllm.intake.limits import Limits
from vllm_qllm.intake.passage import Passage, passage
from vllm_qllm.intake.turns import Turn, Turns

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
        if limits is None or scope["type"] != "http" or scope["method"] in WITHOUT_BODY:
            await self._app(scope, receive, send)
            return
        body = _Body(limits, scope)
        if not await body.read(receive):
            return  # the client has gone
        if body.refusal is not None:
            await _answer(body, body.refusal, scope, receive, send)
            return
        served = Passage(limits, len(limits.classes) - 1)
        token = passage.set(served)
        try:
            if not body.is_small:
                async with _unless_gone(receive) as gone:
                    served.turn = await self._turn_unless(gone)
                if served.turn is None:
                    return
            await self._app(scope, body.again(receive), _noticed(served, send))
        finally:
            served.was_read()
            passage.reset(token)

    async def _turn_unless(self, gone: asyncio.Future[Message]) -> Turn | None:
        """One's turn; None if the client goes away before."""
        taking = asyncio.ensure_future(self._turns.take())
        try:
            await asyncio.wait((taking, gone), return_when=asyncio.FIRST_COMPLETED)
            return taking.result() if taking.done() else None
        except asyncio.CancelledError:  # by the server, when nobody is there to use a turn
            taking.add_done_callback(_give_back)
            raise
        finally:
            taking.cancel()


def _give_back(taking: asyncio.Future[Turn]) -> None:
    if not taking.cancelled():
        taking.result().give_back()


class _Body:
    """Reads a body, as far as it is not too large."""

    def __init__(self, limits: Limits, scope: Scope) -> None:
        headers = Headers(scope=scope)
        self._most_bytes, self._most_items = limits.body_bytes, limits.items_at(scope["path"])
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

    def _count(self, piece: bytes) -> None:
        if self._counts and self.refusal is None:
            self._size.feed(piece)
        else:
            self._size.length += len(piece)
        self._check_bytes(self._size.length)
        most = self._most_items
        if self.refusal is None and self._size.items > most:
            self.refusal = Refusal(
                "body",
                f"the body holds more than {most} texts, names, lists and objects (or {COMMAS} "
                f"times as many numbers); allowed: {most} (max_body_items)",
            )

    def _check_bytes(self, count: int) -> None:
        most = self._most_bytes
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
        with contextlib.suppress(asyncio.CancelledError):
            await gone


def _noticed(served: Passage, send: Send) -> Send:
    """Sends, and notices when there is something to be sent: then it has been read."""

    async def noticed(message: Message) -> None:
        if message["type"] == "http.response.body":
            served.was_read()
        await send(message)

    return noticed


async def _answer(
    body: _Body, refusal: Refusal, scope: Scope, receive: Receive, send: Send
) -> None:
    visit = scope.get(SCOPE_KEY)
    if isinstance(visit, Visit):
        visit.refuse(refusal)  # counted and written down as its other ones are
    headers = {"Connection": "close"} if body.is_too_long else {}
    response = JSONResponse(refusal.body_at(scope["path"]), refusal.status, headers=headers)
    await response(scope, receive, send)
