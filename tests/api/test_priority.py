# SPDX-License-Identifier: Apache-2.0
"""Header before ``priority`` before ``service_tier`` before 0, wherever a client has put them."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any, get_args

import pytest
from fastapi import Request
from openai.types.beta import BetaServiceTier
from vllm.entrypoints.generate.base.serving import GenerateBaseServing
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.exceptions import VLLMValidationError

from vllm_qllm.api.priority import asked_of, heard
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


def http(priority: str | None = None, sent: Any = None) -> Request:
    """An HTTP request, with the header and the JSON if there are any."""
    headers = [] if priority is None else [(b"x-vllm-priority", priority.encode())]

    async def receive() -> Any:
        return {"type": "http.request", "body": json.dumps(sent).encode()}

    return Request({"type": "http", "headers": headers}, *([receive] if sent else []))


def priority_of(
    config: PriorityConfig, request: Any, raw_request: Request | None = None, sent: Any = None
) -> int:
    """What it asks for; ``sent`` is what the client has sent, if that is not the request itself."""
    if sent is None:
        sent = {name: getattr(request, name) for name in request.model_fields_set}
    return asked_of(config, heard(request, sent), raw_request) or 0


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


UNKNOWN = ["cheap", "", "Flex", 5, ["flex"], {"flex": 1}, "x" * 10_000]
OTHERS = PriorityConfig(service_tiers={"*": "best_effort", "Flex": -9})


@pytest.mark.parametrize("kind", ["chat", "completion"])
@pytest.mark.parametrize("tier", UNKNOWN)
def test_an_unknown_service_tier_asks_for_nothing(kind: str, tier: Any) -> None:
    assert priority_of(CONFIG, body(kind, service_tier=tier), http()) == 0
    assert priority_of(CONFIG, body(kind, service_tier=tier, priority=1), http()) == 1
    expected = {"Flex": -9}.get(tier, 1) if isinstance(tier, str) else 0
    assert priority_of(OTHERS, body(kind, service_tier=tier), http()) == expected


def test_the_tiers_of_the_sdk_are_known() -> None:
    literal, none = get_args(BetaServiceTier)
    assert none is type(None) and set(SERVICE_TIERS) < set(get_args(literal))
    for tier in get_args(literal):
        assert CONFIG.tier_priority(tier) is not None


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


# What a client sends, and what it asks for.
IN_EXTRA_BODY: list[tuple[Any, int]] = [
    ({"extra_body": {"priority": 10}}, 10),
    ({"extra_body": {"priority": "10"}}, 10),
    ({"extra_body": {"service_tier": "flex"}}, 70),
    ({"extra_body": {"service_tier": "flex"}, "priority": 3}, 3),
    ({"extra_body": {"priority": 3}, "service_tier": "flex"}, 3),
    ({"extra_body": {"priority": 3}, "priority": 3}, 3),
    ({"extra_body": {"priority": None}, "service_tier": "flex"}, 70),
    ({"extra_body": {"top_k": 1}}, 0),
    ({"extra_body": [1]}, 0),
    ({"extra_body": None, "priority": 3}, 3),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("sent", "expected"), IN_EXTRA_BODY)
def test_extra_body_counts_as_the_body(kind: str, sent: Any, expected: int) -> None:
    assert priority_of(CONFIG, body(kind, **sent), http(), sent) == expected
    assert priority_of(CONFIG, body(kind, **sent), http()) == expected
    assert priority_of(CONFIG, body(kind, **sent), http("-7"), sent) == -7


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("sent", "field", "shown"),
    [
        ({"priority": 1, "extra_body": {"priority": 2}}, "priority", ("1", "2")),
        (
            {"service_tier": "auto", "extra_body": {"service_tier": "flex"}},
            "service_tier",
            ("auto", "flex"),
        ),
        (
            {"vllm_xargs": {"a": 1, "b": 2}, "extra_body": {"vllm_xargs": {"b": 3}}},
            "vllm_xargs.b",
            ("2", "3"),
        ),
    ],
)
def test_what_contradicts_itself_is_refused(
    kind: str, sent: Any, field: str, shown: tuple[str, str]
) -> None:
    with pytest.raises(VLLMValidationError) as refused:
        heard(body(kind, **sent), sent)
    assert refused.value.parameter == f"extra_body.{field}"
    for part in (f"extra_body.{field} is", f"{field} is", *shown):
        assert part in str(refused.value)


@pytest.mark.parametrize("value", ["high", 1.5, [1], {"a": 1}, INT64_MAX + 1], ids=str)
def test_a_priority_that_no_model_has_seen_is_checked(value: Any) -> None:
    for sent in ({"extra_body": {"priority": value}}, {"priority": value}):
        with pytest.raises(VLLMValidationError) as refused:
            heard(body(), sent)
        assert str(refused.value.parameter).endswith("priority")
        assert str(INT64_MAX) in str(refused.value) and len(str(refused.value)) < 500


def test_an_integer_of_thousands_of_digits_is_refused_in_words() -> None:
    with pytest.raises(VLLMValidationError, match="too large to show"):
        heard(body(), {"extra_body": {"priority": 10**5000}})


@pytest.mark.parametrize("kind", KINDS)
def test_xargs_reach_the_engine_wherever_they_stand(kind: str) -> None:
    for sent in (
        {"vllm_xargs": {"program_id": "p", "k": 1}},
        {"extra_body": {"vllm_xargs": {"program_id": "p", "k": 1}}},
        {"vllm_xargs": {"k": 1}, "extra_body": {"vllm_xargs": {"program_id": "p"}}},
    ):
        request = body(kind)  # the handler's, of which a translation has lost them
        heard(request, sent)
        assert request.vllm_xargs == {"program_id": "p", "k": 1}
    with pytest.raises(VLLMValidationError) as refused:
        heard(body(kind), {"extra_body": {"vllm_xargs": {"program_id": {}}}})
    assert refused.value.parameter == "extra_body.vllm_xargs"


@pytest.mark.parametrize(
    ("sent", "expected"),
    [({}, None), ({"priority": None}, None), ({"priority": 0}, 0), ({"service_tier": "flex"}, 70)],
)
def test_what_a_translation_names_the_client_has_not(sent: Any, expected: int | None) -> None:
    made = body(priority=0)  # as vLLM makes of Cohere's requests
    assert asked_of(CONFIG, heard(made, sent)) == expected


def test_every_tier_of_the_api_has_a_priority() -> None:
    assert {priority_of(CONFIG, body(service_tier=t)) for t in SERVICE_TIERS} == {-2, -1, 0, 70}


class Handler(GenerateBaseServing):
    """As much of a handler as the seam looks at."""

    def __init__(self, additional_config: Any) -> None:
        vllm_config = SimpleNamespace(additional_config=additional_config)
        methods = dict.fromkeys(("shutdown", "check_admission", "check_health"), lambda: None)
        engine = dict.fromkeys(("generate", "encode"), lambda prompt, *, priority=0: priority)
        processor = SimpleNamespace(process_outputs=None, add_request=None)
        self.engine_client: Any = SimpleNamespace(
            vllm_config=vllm_config, output_processor=processor, **methods, **engine
        )
        self.got: list[int] = []

    async def create_batch_chat_completion(self, request: Any, raw_request: Any = None) -> str:
        self.got += [request.priority, self._get_priority(request, raw_request)]
        self.got += [self.engine_client.generate("prompt", priority=request.priority - 1)]
        self.got += [self.engine_client.encode("prompt")]
        return "done"


def test_a_handler_with_a_policy_asks_us() -> None:
    handler = Handler({"priority": CONFIG.to_dict()})
    teach(handler)
    create = handler.create_batch_chat_completion
    # Batches read the field of the body: it must hold what the header says.
    assert asyncio.run(create(body(service_tier="flex"), http("4"))) == "done"
    assert asyncio.run(create(body(service_tier="flex"))) == "done"
    # What the client sent, not what its request was made into.
    assert asyncio.run(create(body(priority=0), http(None, {"extra_body": {"priority": 5}})))
    assert handler.got == [4] * 4 + [70] * 4 + [5] * 4
    with pytest.raises(VLLMValidationError):
        asyncio.run(create(body(), http("urgent")))
    assert len(handler.got) == 12


@pytest.mark.parametrize("additional_config", [None, {}, {"other": 1}])
def test_a_handler_without_a_policy_is_stock(additional_config: Any) -> None:
    handler = Handler(additional_config)
    teach(handler)
    assert set(vars(handler)) == {"engine_client", "got"}
    assert handler._get_priority(body(service_tier="flex", priority=2), http("urgent")) == 2
    assert handler._get_priority(body(service_tier="cheap"), http()) == 0
