# SPDX-License-Identifier: Apache-2.0
"""``GET /qllm/timeline``: what the engines did in the last seconds."""

from __future__ import annotations

import asyncio
from argparse import Namespace
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query
from starlette.responses import JSONResponse, Response

from vllm_qllm.api.readers import RETRY, Readers, TooManyReaders, written
from vllm_qllm.metrics.kept import kept
from vllm_qllm.timeline.document import Parts
from vllm_qllm.timeline.ring import NoRing

PATH = "/qllm/timeline"
MAX_SECONDS = 3600.0
MAX_READERS = 8

# vLLM answers what cannot be used with 400, where FastAPI would with 422.
ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"description": "A value that cannot be used"},
    503: {"description": "The timeline cannot be read, or too many read it at once"},
}

Seconds = Annotated[
    float,
    Query(
        gt=0,
        le=MAX_SECONDS,
        allow_inf_nan=False,
        description="How much of the past; what was going on at its beginning is there whole.",
    ),
]
After = Annotated[
    int,
    Query(
        ge=0,
        lt=2**63,
        description="Leave out events up to this number, which the caller has.",
    ),
]


class TimelineEndpoint:
    """One of vLLM's endpoint plugins.

    Args:
        prefix: of the server's files (see :mod:`vllm_qllm.metrics.location`).
    """

    name = "qllm_timeline"
    required_tasks = None

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._kept = kept(Path(prefix).parent)  # while the server runs

    def attach_router(self, app: FastAPI) -> None:
        """Add the route."""

        readers = Readers(MAX_READERS)

        @app.get(
            PATH,
            summary="What the engines did in the last seconds",
            responses=ERRORS,
            response_class=JSONResponse,
        )
        async def timeline(seconds: Seconds = 10.0, after: After = 0) -> Response:
            try:
                async with readers.turn():
                    # Reading is NumPy's work, which needs the interpreter little.
                    parts = await asyncio.to_thread(Parts, self._prefix, seconds, after)
                    text = await written(parts)
            except TooManyReaders as error:
                raise HTTPException(503, str(error), headers=RETRY) from error
            except NoRing as error:
                raise HTTPException(503, f"the timeline cannot be read: {error}") from error
            return Response(text, media_type="application/json")

    async def init_state(self, engine_client: Any, state: Any, args: Namespace) -> None:
        """Open the files, whose names may be gone when somebody asks."""
        self._kept.look()
