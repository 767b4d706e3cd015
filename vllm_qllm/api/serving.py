# SPDX-License-Identifier: Apache-2.0
"""Teaches vLLM's request handlers priorities and service tiers, when a policy is on."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any

from vllm_qllm.api import tier
from vllm_qllm.api.priority import priority_of
from vllm_qllm.config import PriorityConfig, carried

# The methods by which requests enter the handlers; a handler has one or two of them.
ENTRIES = (
    "create_chat_completion",
    "create_batch_chat_completion",
    "create_completion",
    "create_responses",
)


def teach(handler: Any) -> None:
    """Replace the handler's own lookup of a priority, on this object only.

    Args:
        handler: a ``GenerateBaseServing`` that knows its ``engine_client``.
    """
    data = carried(getattr(handler.engine_client, "vllm_config", None))
    if data is None:
        return
    config = PriorityConfig.from_dict(data)
    handler._get_priority = functools.partial(priority_of, config)
    for name in ENTRIES:
        if hasattr(handler, name):
            setattr(handler, name, _checked(getattr(handler, name), config))


def _checked(
    create: Callable[[Any, Any], Awaitable[Any]], config: PriorityConfig
) -> Callable[[Any, Any], Awaitable[Any]]:
    @functools.wraps(create)
    async def checked(request: Any, raw_request: Any = None) -> Any:
        asked = getattr(request, "service_tier", None)
        # Before anything is done for the request; and batches of chats read the field alone.
        request.priority = priority_of(config, request, raw_request)
        serving = tier.serving_tier(config, request.priority, asked)
        return await tier.answer(create, request, raw_request, serving)

    return checked
