# SPDX-License-Identifier: Apache-2.0
"""Where requests come in: what they may be, which class they have, and which replica answers."""

from __future__ import annotations

import re
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from vllm_qllm.access.access_control import GATEWAY_HEADER, TENANT_HEADER
from vllm_qllm.access.middleware import REQUEST_ID
from vllm_qllm.ray import errors
from vllm_qllm.ray.exchange import Exchange, LostError, NoReplicaError
from vllm_qllm.ray.messages import Head, ReplicaRequest
from vllm_qllm.ray.paths import target_of
from vllm_qllm.ray.settings import Settings
from vllm_qllm.ray.urgency import PRIORITY_HEADER, Urgency

# Only a gateway's word is passed on.
OF_GATEWAYS = {name.lower() for name in (PRIORITY_HEADER, GATEWAY_HEADER, TENANT_HEADER)}
DROPPED = {
    *("connection", "keep-alive", "proxy-authorization", "proxy-connection", "te", "trailer"),
    *("transfer-encoding", "upgrade", "content-length", "expect", "x-forwarded-for"),
}
NOBODY = "No replica takes requests now. Try again."
GONE = "The replica that answered is gone. Try again."
TRIES = 2


class Front:
    """A deployment of Serve, the one that gets HTTP requests.

    Args:
        settings: fields of :class:`Settings`.
        replicas: handle of the deployment of :class:`~vllm_qllm.ray.replica.Replica`.
    """

    def __init__(self, settings: dict[str, Any], replicas: Any) -> None:
        self._settings = Settings.parse(settings)
        self._urgency = Urgency(self._settings.priorities)
        self._replicas = replicas.options(method_name="answer", stream=True)

    async def __call__(self, request: Request) -> Response:
        """Answer one request."""
        path: str = request.scope["path"]
        target = target_of(request.scope)
        if target is None:
            return errors.answer(path, 404, "There is no such path here.")
        body = await self._body(request)
        if body is None:
            allowed = self._settings.max_body_bytes
            text = f"The body is too large; allowed: {allowed} bytes."
            return errors.answer(path, 413, text)
        return await self._answer(path, self._ask(request, target, body))

    async def _body(self, request: Request) -> bytes | None:
        """The whole; None when that is more than it may be."""
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > self._settings.max_body_bytes:
                return None
        return bytes(body)

    def _ask(self, request: Request, target: str, body: bytes) -> ReplicaRequest:
        host = request.client.host if request.client else ""
        dropped = DROPPED if self._settings.is_trusted(host) else DROPPED | OF_GATEWAYS
        for name in request.headers:
            # What some servers take for the same name, and what a client forbids to pass on.
            if "_" in name:
                dropped = dropped | {name}
        for name in request.headers.get("connection", "").split(","):
            dropped = dropped | {name.strip().lower()}
        headers = request.headers.mutablecopy()
        for name in dropped:
            del headers[name]
        if re.fullmatch(r"[\w.:-]{1,128}", headers.get(REQUEST_ID, ""), re.ASCII) is None:
            headers[REQUEST_ID] = uuid.uuid4().hex
        headers["X-Forwarded-For"] = host
        level = self._urgency.level(headers, body)
        return ReplicaRequest(request.method, target, tuple(headers.items()), body, level)

    async def _answer(self, path: str, ask: ReplicaRequest) -> Response:
        """As a replica has it; of another one where the first had no byte of it.

        Not sent again: what has begun, a 500, what takes long.
        """
        answer: Response = errors.answer(path, 503, NOBODY)
        for _ in range(TRIES):
            try:
                exchange = await self._begin(ask)
                if exchange is None:
                    break
                if exchange.head.is_stream:
                    events = self._events(path, exchange)
                    return _response(StreamingResponse(events), exchange.head)
                answer = _response(Response(await _whole(exchange)), exchange.head)
                if answer.status_code != 503:
                    break
                ask = replace(ask, tried=(*ask.tried, exchange.replica))
            except LostError as error:
                answer = errors.answer(path, 502, GONE)
                ask = replace(ask, tried=(*ask.tried, error.replica))
            except NoReplicaError:
                break
        return answer

    async def _begin(self, ask: ReplicaRequest) -> Exchange | None:
        return await Exchange.begin(self._replicas, ask, self._settings.assign_seconds)

    async def _events(self, path: str, exchange: Exchange) -> AsyncIterator[bytes]:
        """The stream; it ends with an error of its own when the replica goes."""
        last = b"\n\n"
        try:
            async for part in exchange.body():
                yield part
                last = (last + part)[-2:]
        except LostError:
            # An event that was cut off must not swallow the next one.
            yield (b"" if last == b"\n\n" else b"\n\n") + errors.event(path, GONE)
        finally:
            exchange.close()


async def _whole(exchange: Exchange) -> bytes:
    try:
        return b"".join([part async for part in exchange.body()])
    finally:
        exchange.close()


def _response(response: Response, head: Head) -> Response:
    """The response with the status and the headers of a replica's answer."""
    response.status_code = head.status
    for name, value in head.headers:
        response.headers.append(name, value)
    return response
