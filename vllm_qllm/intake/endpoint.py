# SPDX-License-Identifier: Apache-2.0
"""Brings the limits into an API server: as an endpoint plugin of vLLM, though it adds no route."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from fastapi import FastAPI

from vllm_qllm.config import PriorityConfig, carried
from vllm_qllm.intake.fail_fast import fail_fast
from vllm_qllm.intake.limits import Limits
from vllm_qllm.intake.middleware import IntakeMiddleware


class IntakeEndpoint:
    """One of vLLM's endpoint plugins."""

    name = "qllm_intake"
    required_tasks = None

    def __init__(self) -> None:
        self._limits: Limits | None = None

    def attach_router(self, app: FastAPI) -> None:
        """Add the middleware. What is added later, as that of keys, comes before it."""
        fail_fast(app)
        app.add_middleware(IntakeMiddleware, limits=lambda: self._limits)

    async def init_state(self, engine_client: Any, state: Any, args: Namespace) -> None:
        """Bound what the server does for less urgent requests, from now on.

        Args:
            engine_client: an ``AsyncLLM``; None on a server without an engine, which has no policy.
            state: is left alone.
            args: are left alone.
        """
        vllm_config = getattr(engine_client, "vllm_config", None)
        data = carried(vllm_config)
        if data is None or vllm_config is None:
            return
        from vllm_qllm.intake import renderer
        from vllm_qllm.intake.admission import Admission

        config = PriorityConfig.from_dict(data)
        self._limits = Limits.of(config, vllm_config.model_config.max_model_len)
        renderer.bound(engine_client.renderer)
        Admission(engine_client)
