# SPDX-License-Identifier: Apache-2.0
"""Names of tiers that vLLM's own models of requests do not know reach the handlers all the same.

``service_tier`` of a response must be one of five names in vLLM 0.32.0, and not null.
"""

from __future__ import annotations

import json
from argparse import Namespace
from typing import Any, Literal, get_args, get_origin

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vllm_qllm.config import PriorityConfig, carried
from vllm_qllm.intake.urgency_fields import EXTRA, SERVICE_TIER


def strict_routes(app: FastAPI) -> dict[str, tuple[str, ...]]:
    """The paths whose model of a request names the tiers that it takes, and these names."""
    found = {}
    for route in app.routes:
        body = route.body_field if isinstance(route, APIRoute) else None
        model = None if body is None else body.field_info.annotation
        field = getattr(model, "model_fields", {}).get(SERVICE_TIER)
        if field is not None and get_origin(field.annotation) is Literal:
            found[route.path] = get_args(field.annotation)  # type: ignore[attr-defined]
    return found


def rewritten(config: PriorityConfig, body: bytes, names: tuple[str, ...]) -> bytes:
    """A body that a model with these ``names`` takes, if the tier is known to the configuration.

    Args:
        config: of the server.
        body: JSON; what is none, and a tier that nobody knows, stays as it is.
        names: that vLLM's model takes.
    """
    if SERVICE_TIER.encode() not in body:
        return body
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return body
    if not isinstance(data, dict) or SERVICE_TIER not in data:
        return body
    tier = data[SERVICE_TIER]
    if tier is None:
        del data[SERVICE_TIER]
    elif tier in names or config.tier_priority(tier) is None or not _moved(data, tier):
        return body
    return json.dumps(data).encode()


def _moved(data: dict[str, Any], tier: str) -> bool:
    """Put the tier where handlers look and models do not; False: another one is there."""
    extra = data.get(EXTRA)
    extra = {} if extra is None else extra
    if not isinstance(extra, dict) or extra.get(SERVICE_TIER, tier) != tier:
        return False
    del data[SERVICE_TIER]
    data[EXTRA] = extra | {SERVICE_TIER: tier}
    return True


class TierNames:
    """Middleware, inside of all others: what it reads has been let in.

    Args:
        app: that it stands before.
        routes: by :func:`strict_routes`.
    """

    def __init__(self, app: ASGIApp, routes: dict[str, tuple[str, ...]]) -> None:
        self.app, self._routes = app, routes
        self._config: PriorityConfig | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        names = None
        if scope["type"] == "http" and scope["method"] == "POST":
            names = self._routes.get(scope["path"].removeprefix(scope.get("root_path", "")))
        if names is None or (config := self._known(scope)) is None:
            await self.app(scope, receive, send)
            return
        parts = bytearray()
        while (message := await receive())["type"] == "http.request":
            parts += message.get("body", b"")
            if not message.get("more_body", False):
                break
        else:
            # The client has gone.
            await self.app(scope, _first(message, receive), send)
            return
        body = rewritten(config, bytes(parts), names)
        scope = {**scope, "headers": list(scope["headers"])}
        if "content-length" in (headers := MutableHeaders(raw=scope["headers"])):
            headers["content-length"] = str(len(body))
        message = {"type": "http.request", "body": body, "more_body": False}
        await self.app(scope, _first(message, receive), send)

    def _known(self, scope: Scope) -> PriorityConfig | None:
        if self._config is None:
            client = getattr(scope["app"].state, "engine_client", None)
            data = carried(getattr(client, "vllm_config", None))
            self._config = None if data is None else PriorityConfig.from_dict(data)
        return self._config


def _first(message: Message, receive: Receive) -> Receive:
    """As ``receive``, after one message."""
    left = [message]

    async def receive_next() -> Message:
        return left.pop() if left else await receive()

    return receive_next


class TierNamesEndpoint:
    """One of vLLM's endpoint plugins, which are shown the application before it starts."""

    name = "qllm_tier_names"
    required_tasks = None

    def attach_router(self, app: FastAPI) -> None:
        """Add the middleware; there is no route."""
        app.add_middleware(TierNames, routes=strict_routes(app))

    async def init_state(self, engine_client: Any, state: Any, args: Namespace) -> None:
        """Nothing: the configuration is looked up when it is needed."""
