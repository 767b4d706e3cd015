# SPDX-License-Identifier: Apache-2.0
"""Anthropic's API: ``usage.service_tier`` of an answer, by that API's names."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from vllm.entrypoints.anthropic.protocol import AnthropicMessagesResponse, AnthropicUsage

from vllm_qllm.api.tier import SCOPE_KEY

NAMES = {"default": "standard", "priority": "priority", "scale": "priority", "flex": "batch"}
# The event that says what a stream was begun with, and where it does.
START, USAGE = "event: message_start\n", '"usage":{'


class _Usage(AnthropicUsage):
    service_tier: str


class _Response(AnthropicMessagesResponse):
    usage: _Usage | None = None


def with_tier(create: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """``create_messages`` of a handler, with answers that name the tier that served."""

    @functools.wraps(create)
    async def create_messages(request: Any, raw_request: Any = None) -> Any:
        answered = await create(request, raw_request)
        tier = None if raw_request is None else raw_request.scope.get(SCOPE_KEY)
        if tier is None:
            return answered
        if isinstance(answered, AsyncGenerator):
            return _events(answered, NAMES[tier])
        if isinstance(answered, AnthropicMessagesResponse) and answered.usage is not None:
            return _whole(answered, answered.usage, NAMES[tier])
        return answered

    return create_messages


def _whole(answered: AnthropicMessagesResponse, usage: AnthropicUsage, tier: str) -> _Response:
    fields = {name: getattr(answered, name) for name in type(answered).model_fields}
    counts = {name: getattr(usage, name) for name in usage.model_fields_set}
    fields["usage"] = _Usage(**counts, service_tier=tier)
    return _Response(**fields)


async def _events(stream: AsyncGenerator[str, None], tier: str) -> AsyncGenerator[str, None]:
    async with contextlib.aclosing(stream):
        async for event in stream:
            if event.startswith(START):
                event = event.replace(USAGE, f'{USAGE}"service_tier":"{tier}",', 1)
            yield event
