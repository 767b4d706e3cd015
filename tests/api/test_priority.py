# SPDX-License-Identifier: Apache-2.0
"""Header before ``priority`` before ``service_tier`` before 0, and nothing unclear is taken."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import Request
from vllm.entrypoints.generate.base.serving import GenerateBaseServing
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.exceptions import VLLMValidationError

from vllm_qllm.api.priority import priority_of
from vllm_qllm.api.serving import teach
from vllm_qllm.config import INT64_MAX, INT64_MIN, SERVICE_TIERS, PriorityConfig

CONFIG = PriorityConfig(service_tiers={"flex": 70})
KINDS = ["chat", "completion", "response"]


def body(kind: str = "chat", **fields: Any) -> Any:
    """A parsed request of vLLM's."""
    if kind == "chat":
        return ChatCompletionRequest(messages=[{"role": "user", "content": "hi"}], **fields)
    if kind == "completion":
        return CompletionRequest(prompt="hi", **fields)
    return ResponsesRequest(input="hi", **fields)


def http(priority: str | None = None) -> Request:
    """An HTTP request, with the header if there is one."""
    headers = [] if priority is None else [(b"x-vllm-priority", priority.encode())]
    return Request({"type": "http", "headers": headers})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("fields", "header", "expected"),
    [
        ({}, None, 0),
        ({"service_tier": "auto"}, None, 0),
        ({"service_tier": "default"}, None, 0),
        ({"service_tier": "priority"}, None, -2),
        ({"service_tier": "scale"}, None, -1),
        ({"service_tier": "flex"}, None, 70),
        ({"priority": 3}, None, 3),
        ({"priority": 3, "service_tier": "flex"}, None, 3),
        ({"priority": 0, "service_tier": "flex"}, None, 0),
        ({"priority": 3, "service_tier": "flex"}, "-7", -7),
        ({"service_tier": "flex"}, "0", 0),
        ({}, str(INT64_MAX), INT64_MAX),
        ({}, str(INT64_MIN), INT64_MIN),
        ({"priority": INT64_MIN}, None, INT64_MIN),
    ],
)
def test_what_comes_first(kind: str, fields: Any, header: str | None, expected: int) -> None:
    assert priority_of(CONFIG, body(kind, **fields), http(header)) == expected


@pytest.mark.parametrize("kind", ["chat", "completion"])
def test_null_is_no_service_tier(kind: str) -> None:
    assert priority_of(CONFIG, body(kind, service_tier=None), http()) == 0


def test_without_http_there_is_no_header() -> None:
    assert priority_of(CONFIG, body(service_tier="flex")) == 70


@pytest.mark.parametrize("kind", ["chat", "completion"])
@pytest.mark.parametrize("tier", ["cheap", "", "Flex", 5, ["flex"], {"flex": 1}, "x" * 10_000])
@pytest.mark.parametrize("other", [{}, {"priority": 1}])
def test_an_unknown_service_tier_is_refused(kind: str, tier: Any, other: Any) -> None:
    with pytest.raises(VLLMValidationError) as refused:
        priority_of(CONFIG, body(kind, service_tier=tier, **other), http())
    message = str(refused.value)
    assert refused.value.parameter == "service_tier"
    assert repr(tier)[:50] in message
    assert ", ".join(("priority", "scale", "auto", "default", "flex")) in message
    assert len(message) < 500


HEADERS = ["urgent", "", "1.5", "0x10", "1_000", "1e3", "9" * 21, "9" * 100_000, "--1", "1 2"]


@pytest.mark.parametrize("value", [*HEADERS, str(INT64_MAX + 1), str(INT64_MIN - 1)])
def test_a_header_that_is_no_64_bit_integer_is_refused(value: str) -> None:
    with pytest.raises(VLLMValidationError) as refused:
        priority_of(CONFIG, body(priority=1), http(value))
    message = str(refused.value)
    assert refused.value.parameter == "X-Vllm-Priority"
    assert value[:50] in message
    assert str(INT64_MAX) in message
    assert str(INT64_MIN) in message
    assert len(message) < 500


def test_a_priority_that_skipped_validation_is_checked_again() -> None:
    request = ChatCompletionRequest.model_construct(
        _fields_set={"priority"}, priority=INT64_MAX + 1, messages=[]
    )
    with pytest.raises(VLLMValidationError, match="priority is 9223372036854775808"):
        priority_of(CONFIG, request, http())


@pytest.mark.parametrize(
    ("fields", "header"), [({"service_tier": "flex"}, None), ({"priority": 5}, None), ({}, "5")]
)
def test_a_beam_search_cannot_hide_in_the_most_urgent_class(
    fields: Any, header: str | None
) -> None:
    with pytest.raises(VLLMValidationError, match="use_beam_search"):
        priority_of(CONFIG, body(use_beam_search=True, **fields), http(header))
    assert priority_of(CONFIG, body(use_beam_search=True), http()) == 0


def test_every_tier_of_the_api_has_a_priority() -> None:
    assert {priority_of(CONFIG, body(service_tier=t)) for t in SERVICE_TIERS} == {-2, -1, 0, 70}


class Handler(GenerateBaseServing):
    """As much of a handler as the seam looks at."""

    def __init__(self, additional_config: Any) -> None:
        vllm_config = SimpleNamespace(additional_config=additional_config)
        methods = dict.fromkeys(("shutdown", "check_admission", "check_health"), lambda: None)
        self.engine_client: Any = SimpleNamespace(vllm_config=vllm_config, **methods)
        self.got: list[int] = []

    async def create_batch_chat_completion(self, request: Any, raw_request: Any = None) -> str:
        self.got += [request.priority, self._get_priority(request, raw_request)]
        return "done"


def test_a_handler_with_a_policy_asks_us() -> None:
    handler = Handler({"priority": CONFIG.to_dict()})
    teach(handler)
    assert handler._get_priority(body(service_tier="flex"), http()) == 70
    create = handler.create_batch_chat_completion
    # Batches read the field of the body: it must hold what the header says.
    assert asyncio.run(create(body(service_tier="flex"), http("4"))) == "done"
    assert asyncio.run(create(body(service_tier="flex"))) == "done"
    assert handler.got == [4, 4, 70, 70]
    with pytest.raises(VLLMValidationError):
        asyncio.run(create(body(service_tier="cheap"), http()))
    assert len(handler.got) == 4


@pytest.mark.parametrize("additional_config", [None, {}, {"other": 1}])
def test_a_handler_without_a_policy_is_stock(additional_config: Any) -> None:
    handler = Handler(additional_config)
    teach(handler)
    assert set(vars(handler)) == {"engine_client", "got"}
    assert handler._get_priority(body(service_tier="flex", priority=2), http("urgent")) == 2
    assert handler._get_priority(body(service_tier="cheap"), http()) == 0
