# SPDX-License-Identifier: Apache-2.0
"""The outermost layer of the HTTP server when tenants are configured: each request has one."""

from __future__ import annotations

import re
import uuid
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vllm_qllm.access.access_control import AccessControl, open_access, this_access
from vllm_qllm.access.body import LimitedBody
from vllm_qllm.access.enforcement import current_request, enforce
from vllm_qllm.access.refusal import Refusal
from vllm_qllm.access.route import is_served, path_of, route_of
from vllm_qllm.access.route_kind import RouteKind, kind_of
from vllm_qllm.access.tenant_request import SCOPE_KEY, TenantRequest
from vllm_qllm.config import ConfigError, PriorityConfig, carried
from vllm_qllm.metrics import location

# The name in --middleware; vLLM imports it by that.
PATH = f"{__name__}.AccessMiddleware"
REQUEST_ID = "X-Request-Id"


class AccessMiddleware:
    """Lets requests of known tenants in, holds what they use, and answers the others itself.

    Added to ``--middleware`` by ``tenants`` in ``--priority-config``.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            # The engine is known by now.
            client = scope["app"].state.engine_client
            data = carried(client.vllm_config)
            try:
                open_access(PriorityConfig.from_dict(data or {}), location.beside("tenants"))
                enforce(client)
            except ConfigError as error:  # the file has changed since the start began
                await receive()
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                return
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        access = this_access()
        if access is None:  # never without a lifespan; but an early request must not come in
            raise RuntimeError("the tenants' middleware was not started")
        route = route_of(scope)
        # A browser's question before the request: it has no key, and gets no answer but headers.
        asks_first = scope.get("method") == "OPTIONS" and not is_served(route)
        if kind_of(route) is RouteKind.OPEN or asks_first:
            access.tenants_config  # noqa: B018 - a changed file is noticed by probes, too
            await self.app(scope, receive, send)
            return
        await self._guarded(access, route, scope, receive, send)

    async def _guarded(
        self, access: AccessControl, route: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        headers = Headers(scope=scope)
        request_id = _request_id(headers)
        tenants_config = access.tenants_config
        size = sum(len(name) + len(value) for name, value in scope["headers"])
        if size > tenants_config.max_header_bytes:
            text = f"the headers have {size} bytes; allowed: {tenants_config.max_header_bytes}"
            name: str | Refusal = Refusal("headers", text)
        else:
            name = access.identify(tenants_config, headers)
        if isinstance(name, Refusal):
            access.refused(None, name, route, request_id)
            await _answer(name, route, request_id, scope, receive, send)
            return
        tenant_request = TenantRequest(access, tenants_config, name, route, request_id)
        body = LimitedBody(receive, tenants_config.max_body_bytes, headers)
        serving = current_request.set(tenant_request)
        try:
            if (refusal := _before_reading(tenant_request, body)) is not None:
                await _answer(refusal, route, request_id, scope, receive, send)
                return
            scope[SCOPE_KEY] = tenant_request
            answer = _Answer(tenant_request, body, scope, receive, send)
            await self.app(scope, body.receive, answer.send)
            await answer.finish()
        finally:
            # Also when the client has gone or the server ends: what a stream held is free again.
            current_request.reset(serving)
            tenant_request.close()


def _before_reading(tenant_request: TenantRequest, body: LimitedBody) -> Refusal | None:
    """What can be refused before the request is read."""
    if body.too_large:
        return tenant_request.refuse(body.refusal)
    kind = kind_of(tenant_request.route)
    if kind is RouteKind.OPERATOR and not tenant_request.is_operator:
        return tenant_request.refuse(
            Refusal("operator", "this path is for operators, or does not exist")
        )
    if kind is RouteKind.DEFAULT:
        # vLLM would run it with priority 0; the engine is told what is granted here.
        granted = tenant_request.ask(None, 1)
        return granted if isinstance(granted, Refusal) else None
    return None


class _Answer:
    """What is sent: with ``Retry-After`` where a handler refused, and 413 for a long body."""

    def __init__(
        self,
        tenant_request: TenantRequest,
        body: LimitedBody,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        self._tenant_request, self._body = tenant_request, body
        self._scope, self._receive, self._send = scope, receive, send
        self._started = False

    async def send(self, message: Message) -> None:
        if self._body.too_large and not self._started:
            return  # whatever the application says about a body of which it has seen a part
        if message["type"] == "http.response.start":
            self._started = True
            if (refusal := self._tenant_request.refusal) is not None:
                headers = MutableHeaders(raw=message["headers"])
                headers.update(_headers(refusal, self._tenant_request.request_id))
        await self._send(message)

    async def finish(self) -> None:
        if self._body.too_large and not self._started:
            refusal, tenant_request = (
                self._tenant_request.refuse(self._body.refusal),
                self._tenant_request,
            )
            await _answer(
                refusal,
                tenant_request.route,
                tenant_request.request_id,
                self._scope,
                self._receive,
                self._send,
            )


async def _answer(
    refusal: Refusal, route: str, request_id: str, scope: Scope, receive: Receive, send: Send
) -> None:
    if scope["type"] == "websocket":
        # Before it is accepted: the client gets HTTP status 403.
        await send({"type": "websocket.close", "code": 1008, "reason": refusal.reason})
        return
    headers = _headers(refusal, request_id)
    # The path itself may begin with anything that was put before it.
    body = refusal.body_at(path_of(route) or scope["path"])
    await JSONResponse(body, refusal.status, headers=headers)(scope, receive, send)


def _headers(refusal: Refusal, request_id: str) -> dict[str, str]:
    headers = {REQUEST_ID: request_id}
    if refusal.retry_after is not None:
        headers["Retry-After"] = str(refusal.retry_after)
    if refusal.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if refusal.reason in ("body", "headers"):
        headers["Connection"] = "close"  # the rest of it is not read
    return headers


def _request_id(headers: Any) -> str:
    given = headers.get(REQUEST_ID, "")
    return given if re.fullmatch(r"[\w.:-]{1,128}", given, re.ASCII) else uuid.uuid4().hex
