# SPDX-License-Identifier: Apache-2.0
"""``service_tier`` of an answer: the tier in whose class the request was served."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from vllm_qllm.config import ALIASES, PriorityConfig

# The tiers that can serve; the first one is named first. "auto" only ever is a wish.
SERVING = ("default", "priority", "scale", "flex")
# Where a request's ASGI scope holds it.
SCOPE_KEY = "vllm_qllm.tier"
# How vLLM begins the events of a stream. Errors and the last event begin otherwise.
CHUNK = 'data: {"id":'


def serving_tier(config: PriorityConfig, priority: int, asked: Any) -> str:
    """The name of the tier that serves a request.

    That is the tier that was asked for, by OpenAI's name of it, if the request has its class.
    Otherwise a priority or a name of the operator's decided, and it is the first tier of the same
    class; if there is none, the nearest less urgent one, so that no answer claims more than was
    given.

    Args:
        config: for the priority of each tier.
        priority: of the request, whatever it came from.
        asked: ``service_tier`` of the request, None when it names none.
    """
    level = config.level(priority)
    levels = {tier: config.level(config.service_tiers[tier]) for tier in SERVING}
    name = ALIASES.get(asked, asked) if isinstance(asked, str) else None
    if name is not None and levels.get(name) == level:
        return name
    return min(SERVING, key=lambda tier: (levels[tier] < level, abs(levels[tier] - level)))


def remember(raw_request: Any, tier: str) -> None:
    """Keep the tier with an HTTP request, for who makes another API's answer of this one."""
    if raw_request is not None:
        raw_request.scope[SCOPE_KEY] = tier


async def answer(
    create: Callable[[Any, Any], Awaitable[Any]], request: Any, raw_request: Any, tier: str
) -> Any:
    """What ``create`` answers to a request, with ``service_tier`` in it: whole or as a stream."""
    if "service_tier" in type(request).model_fields:
        # Responses say in every event what their request says.
        request.service_tier = tier
        return await create(request, raw_request)
    answered = await create(request, raw_request)
    if isinstance(answered, AsyncGenerator):
        return _chunks(answered, tier)
    if hasattr(answered, "service_tier"):  # not an error
        answered.service_tier = tier
    return answered


async def _chunks(stream: AsyncGenerator[str, None], tier: str) -> AsyncGenerator[str, None]:
    start = f'data: {{"service_tier":"{tier}","id":'
    # Closed with this one, so that the request of a client that goes away is aborted at once.
    async with contextlib.aclosing(stream):
        async for event in stream:
            # Spliced in, not parsed: this runs once a token.
            yield start + event[len(CHUNK) :] if event.startswith(CHUNK) else event
