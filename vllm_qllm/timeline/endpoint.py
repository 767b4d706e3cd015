# SPDX-License-Identifier: Apache-2.0
"""``GET /qllm/timeline``: what the engines did in the last seconds."""

from __future__ import annotations

from argparse import Namespace
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query

from vllm_qllm.timeline.document import document
from vllm_qllm.timeline.ring import NoRing

PATH = "/qllm/timeline"
MAX_SECONDS = 3600.0

# vLLM answers what cannot be used with 400, where FastAPI would with 422.
ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"description": "A value that cannot be used"},
    503: {"description": "The timeline cannot be read"},
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

    def attach_router(self, app: FastAPI) -> None:
        """Add the route."""

        # Not a coroutine: FastAPI then runs it on a thread of its own, and requests go on.
        @app.get(PATH, summary="What the engines did in the last seconds", responses=ERRORS)
        def timeline(seconds: Seconds = 10.0, after: After = 0) -> dict[str, Any]:
            try:
                return document(self._prefix, seconds, after)
            except NoRing as error:
                raise HTTPException(503, f"the timeline cannot be read: {error}") from error

    async def init_state(self, engine_client: Any, state: Any, args: Namespace) -> None:
        """Nothing: what is asked for is in files."""
