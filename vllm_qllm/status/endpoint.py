# SPDX-License-Identifier: Apache-2.0
"""``GET /qllm/``, the status page, and ``GET /qllm/status``, what it shows."""

from __future__ import annotations

import asyncio
from argparse import Namespace
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query
from starlette.responses import HTMLResponse, JSONResponse, Response

from vllm_qllm.api.readers import RETRY, Readers, TooManyReaders
from vllm_qllm.api.standstill import watch
from vllm_qllm.config import PriorityConfig, carried
from vllm_qllm.metrics import location
from vllm_qllm.metrics.pulse import PulseReader
from vllm_qllm.metrics.stores import Stores
from vllm_qllm.status.document import Source, document
from vllm_qllm.status.history import MAX_SECONDS, History
from vllm_qllm.status.page import load

PAGE, PATH = "/qllm/", "/qllm/status"
MAX_READERS = 64
# vLLM answers what cannot be used with 400, where FastAPI would with 422.
ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"description": "A value that cannot be used"},
    503: {"description": "The server has not started yet, or too many ask at once"},
}

Seconds = Annotated[
    float,
    Query(
        ge=0,
        le=MAX_SECONDS,
        allow_inf_nan=False,
        description="How much of the past; 0 for all since the start.",
    ),
]


class StatusEndpoint:
    """One of vLLM's endpoint plugins.

    Args:
        prefix: of the server's files (see :mod:`vllm_qllm.metrics.location`).
    """

    name = "qllm_status"
    required_tasks = None

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._source: Source | None = None

    def attach_router(self, app: FastAPI) -> None:
        """Add the routes."""
        page = load()

        @app.get(PAGE, summary="The status page", response_class=HTMLResponse)
        async def status_page() -> HTMLResponse:
            return HTMLResponse(page.html, headers=page.headers)

        # Relative, so that it is right behind a proxy that adds something to the path.
        @app.get(PAGE.rstrip("/"), include_in_schema=False)
        async def without_slash() -> Response:
            return Response(status_code=308, headers={"Location": PAGE.lstrip("/")})

        readers = Readers(MAX_READERS)

        @app.get(PATH, summary="How the server is", response_class=JSONResponse, responses=ERRORS)
        async def status(seconds: Seconds = 60.0) -> JSONResponse:
            if self._source is None:
                raise HTTPException(503, "the server has not started yet")
            try:
                async with readers.turn():
                    found = await asyncio.to_thread(document, self._source, seconds)
            except TooManyReaders as error:
                raise HTTPException(503, str(error), headers=RETRY) from error
            return JSONResponse(found, headers={"Cache-Control": "no-store"})

    async def init_state(self, engine_client: Any, state: Any, args: Namespace) -> None:
        """Begin to keep the history of the numbers, and to see whether the engine stands still.

        Args:
            engine_client: an ``AsyncLLM``; None on a server without an engine, which has no status.
            state: is left alone.
            args: the parsed command line, for the names of the model.
        """
        data = carried(getattr(engine_client, "vllm_config", None))
        if data is None:
            return
        config = PriorityConfig.from_dict(data)
        history = History(Stores([c.name for c in config.classes], self._prefix))
        history.keep()
        models = tuple(args.served_model_name or [args.model])
        pulse = PulseReader(location.pulse_of(self._prefix))
        standstill = watch(engine_client, pulse, config.stall_limit_ms / 1000)
        self._source = Source(config, models, history, engine_client, standstill)
