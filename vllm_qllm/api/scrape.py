# SPDX-License-Identifier: Apache-2.0
"""``/metrics`` is answered in pieces, between which the server serves others.

vLLM writes its text in a thread, and on the event loop below ``/metrics/``. A thread that computes
lets the loop have Python after five milliseconds each time that it wants it, and the text of a
thousand tenants takes a fifth of a second.
"""

from __future__ import annotations

import asyncio
import copy
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from typing import Any

from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from vllm_qllm.access.collector import Parts
from vllm_qllm.access.route import path_of, route_of

PATH = "/metrics"
# Of the event loop, at a time.
PIECE_SECONDS = 0.001


async def in_pieces(registry: Collector) -> bytes:
    """The text of ``prometheus_client.generate_latest``.

    Args:
        registry: what is to be shown; it is asked in a thread.
    """
    families = await asyncio.to_thread(lambda: list(registry.collect()))
    texts = []
    began = time.perf_counter()
    for text in (text for family in families for text in _texts(family)):
        texts.append(text)
        spent = time.perf_counter() - began
        if spent > PIECE_SECONDS:
            await asyncio.sleep(spent)  # half of the loop is left to others
            began = time.perf_counter()
    return b"".join(texts)


def _texts(family: Family) -> Iterator[bytes]:
    if not isinstance(family.samples, Parts):
        yield generate_latest(_Only(family))
        return
    part = copy.copy(family)
    part.samples = []
    yield generate_latest(_Only(part))  # what it is called
    for samples in family.samples.parts():
        part.samples = samples
        # The same two lines again, and then its numbers.
        yield generate_latest(_Only(part)).split(b"\n", 2)[2] if samples else b""


class _Only(Collector):
    def __init__(self, family: Family) -> None:
        self._family = family

    def collect(self) -> list[Family]:
        return [self._family]


class Scrapes:
    """Middleware, inside of all others, in place of vLLM's route.

    Args:
        app: that it stands before.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._making: asyncio.Task[bytes] | None = None

    async def _text(self, registry: Callable[[], Collector]) -> bytes:
        """The text; who comes while one is made gets that, as pieces of many fill the loop."""
        if self._making is None:
            self._making = asyncio.ensure_future(in_pieces(registry()))
            self._making.add_done_callback(self._made)
        # Nobody who goes away ends it for the others.
        return await asyncio.shield(self._making)

    def _made(self, _: asyncio.Task[bytes]) -> None:
        self._making = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope.get("method")
        if method != "GET" and _is_for_metrics(scope):
            # No text is made for who does not ask for one: vLLM would, for any method.
            headers = {"Allow": "GET, HEAD"} if method != "HEAD" else {}
            answer = Response(status_code=200 if method == "HEAD" else 405, headers=headers)
            if method == "HEAD":
                answer.headers["Content-Type"] = _content_type(scope) or CONTENT_TYPE_LATEST
                del answer.headers["Content-Length"]  # of a text that is not there
            await answer(scope, receive, send)
            return
        content_type = _content_type(scope) if method == "GET" else None
        if content_type is None:
            await self._app(scope, receive, send)
            return
        from vllm.entrypoints.serve.instrumentator import metrics

        text = await self._text(metrics.get_prometheus_registry)
        await Response(text, headers={"Content-Type": content_type})(scope, receive, send)


def _is_for_metrics(scope: Scope) -> bool:
    return scope["type"] == "http" and PATH in scope["path"] and path_of(route_of(scope)) == PATH


def _content_type(scope: Scope) -> str | None:
    """What vLLM would call its answer; None for what is not answered here."""
    if not _is_for_metrics(scope):
        return None
    route = route_of(scope)
    if route == f"GET {PATH}":
        return CONTENT_TYPE_LATEST
    if path_of(route) != PATH or scope.get("query_string"):
        return None  # below it one may ask for some of the metrics
    encoder, content_type = choose_encoder(Headers(scope=scope).get("accept", ""))
    return content_type if encoder is generate_latest else None  # or for another form


class ScrapeEndpoint:
    """One of vLLM's endpoint plugins, which are shown the application before it starts."""

    name = "qllm_scrape"
    required_tasks = None

    def attach_router(self, app: FastAPI) -> None:
        """Add the middleware; there is no route."""
        app.add_middleware(Scrapes)

    async def init_state(self, engine_client: Any, state: Any, args: Namespace) -> None:
        """Nothing."""
