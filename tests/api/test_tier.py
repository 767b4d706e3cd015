# SPDX-License-Identifier: Apache-2.0
"""``service_tier`` of an answer: the tier that was asked for, or the one that was really given."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from vllm.entrypoints.openai.chat_completion.protocol import (
    ChatCompletionRequest,
    ChatCompletionResponse,
)
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.entrypoints.serve.engine.protocol import ErrorInfo, ErrorResponse, UsageInfo

from vllm_qllm.api.tier import answer, serving_tier
from vllm_qllm.config import PriorityClass, PriorityConfig

TWO = PriorityConfig()
ONE = PriorityConfig(classes=(PriorityClass("all"),))
THREE = PriorityConfig(
    classes=(
        PriorityClass("chat", max_priority=0),
        PriorityClass("agent", max_priority=9),
        PriorityClass("batch"),
    )
)
AGENTS = PriorityConfig(classes=THREE.classes, service_tiers={"default": 5, "auto": 20})
URGENT = PriorityConfig(service_tiers={"flex": 0})


@pytest.mark.parametrize(
    ("config", "priority", "asked", "expected"),
    [
        # What was asked for, where that is what was given.
        (TWO, 0, "default", "default"),
        (TWO, -2, "priority", "priority"),
        (TWO, -1, "scale", "scale"),
        (TWO, 1, "flex", "flex"),
        (TWO, -9, "priority", "priority"),
        # A wish for none in particular, and none.
        (TWO, 0, "auto", "default"),
        (TWO, 0, None, "default"),
        (AGENTS, 20, "auto", "flex"),
        # A number or a header decided.
        (TWO, -7, None, "default"),
        (TWO, 3, None, "flex"),
        (TWO, 3, "priority", "flex"),
        (TWO, 0, "flex", "default"),
        (AGENTS, 5, None, "default"),
        (AGENTS, 0, None, "priority"),
        # No tier has the class: the nearest that does not claim more, else the least urgent.
        (THREE, 5, None, "flex"),
        (THREE, 5, "default", "flex"),
        (URGENT, 3, None, "default"),
        # One class holds all.
        (ONE, 10, None, "default"),
        (ONE, 10, "flex", "flex"),
    ],
)
def test_which_tier_serves(
    config: PriorityConfig, priority: int, asked: str | None, expected: str
) -> None:
    assert serving_tier(config, priority, asked) == expected


CHAT = ChatCompletionRequest(messages=[{"role": "user", "content": "hi"}])


def answered(what: Any, request: Any = CHAT) -> Any:
    """What a handler that answers ``what`` answers in the tier flex."""

    async def create(request: Any, raw_request: Any) -> Any:
        return what

    return asyncio.run(answer(create, request, None, "flex"))


def test_a_whole_answer_names_it() -> None:
    whole = ChatCompletionResponse(model="m", choices=[], usage=UsageInfo())
    assert answered(whole).model_dump()["service_tier"] == "flex"


def test_an_error_stays_as_it_is() -> None:
    error = ErrorResponse(error=ErrorInfo(message="no", type="BadRequestError", code=400))
    before = error.model_dump()
    assert answered(error).model_dump() == before


def test_a_response_takes_it_from_its_request() -> None:
    request = ResponsesRequest(input="hi")
    assert answered("whatever", request) == "whatever"
    assert request.service_tier == "flex"


EVENTS = ['data: {"id":"1","choices":[]}\n\n', 'data: {"error":{}}\n\n', "data: [DONE]\n\n"]


class Stream:
    """A stream of a handler that knows whether it was closed."""

    closed = False

    async def events(self) -> AsyncGenerator[str, None]:
        try:
            for event in EVENTS:
                yield event
        finally:
            self.closed = True


def test_every_chunk_names_it_and_nothing_else_does() -> None:
    async def read() -> list[str]:
        return [event async for event in answered_stream]

    answered_stream = answered(Stream().events())
    first, *others = asyncio.run(read())
    assert first == 'data: {"service_tier":"flex","id":"1","choices":[]}\n\n'
    assert others == EVENTS[1:]


def test_a_stream_that_nobody_reads_on_is_closed_at_once() -> None:
    async def leave() -> bool:
        stream = Stream()

        async def create(request: Any, raw_request: Any) -> Any:
            return stream.events()

        chunks = await answer(create, CHAT, None, "flex")
        await anext(chunks)
        await chunks.aclose()
        return stream.closed

    assert asyncio.run(leave())
