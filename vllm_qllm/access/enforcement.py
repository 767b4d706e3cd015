# SPDX-License-Identifier: Apache-2.0
"""The last check before the engine: only what was admitted gets in, with what was granted.

Handlers ask before they do anything for a request. One that does not, because vLLM or a plugin
has added it since, comes by here all the same: by ``generate`` or ``encode`` of the client. Here,
too, the program that a request names becomes one of its tenant: no way past leads to the engine.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import AsyncGenerator, Callable
from contextvars import ContextVar
from http import HTTPStatus
from typing import Any

from vllm.exceptions import GracefulHTTPError
from vllm.sampling_params import SamplingParams

from vllm_qllm.access.refusal import Refusal
from vllm_qllm.access.tenant_request import TenantRequest
from vllm_qllm.program_id import owned

# Whose request is being served; None is a request without a tenant. Not set: no request at all.
current_request: ContextVar[TenantRequest | None] = ContextVar(
    "vllm_qllm.current_request", default=None
)

Outputs = AsyncGenerator[Any, None]


class RefusedError(GracefulHTTPError):
    """Answered with the status of a refusal, or an error event where a stream has begun."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message, HTTPStatus(refusal.status))


class Enforcement:
    """Replaces two methods of an engine's client, on that object.

    Args:
        client: an ``AsyncLLM``.
    """

    def __init__(self, client: Any) -> None:
        for name in ("generate", "encode"):
            setattr(client, name, self._enforced(getattr(client, name)))

    def _enforced(self, original: Callable[..., Outputs]) -> Callable[..., Outputs]:
        signature = inspect.signature(original)

        def enforced(*args: Any, **kwargs: Any) -> Outputs:
            # Whoever calls serves the request; who reads the outputs may be any task.
            return self._outputs(current_request.get(), original, signature.bind(*args, **kwargs))

        return enforced

    async def _outputs(
        self,
        tenant_request: TenantRequest | None,
        original: Callable[..., Outputs],
        call: inspect.BoundArguments,
    ) -> Outputs:
        if tenant_request is None:
            raise RefusedError(Refusal("no_key", "the engine serves requests of tenants only"))
        # Pooling has one result for each call.
        params = call.arguments.get("sampling_params")
        weight = getattr(params, "n", 1)
        with tenant_request.running(call.arguments.get("priority", 0), weight) as granted:
            if isinstance(granted, Refusal):
                raise RefusedError(granted)
            call.arguments["priority"] = granted
            if isinstance(params, SamplingParams):
                call.arguments["sampling_params"] = owned(params, tenant_request.name)
            # Closed with this one, so that a request that nobody reads is aborted at once.
            async with contextlib.aclosing(original(*call.args, **call.kwargs)) as outputs:
                async for output in outputs:
                    yield output


def enforce(client: Any) -> None:
    """Let an engine's client serve admitted requests only, from now on; once for each client."""
    if getattr(client, "priority_enforcement", None) is None:
        client.priority_enforcement = Enforcement(client)
