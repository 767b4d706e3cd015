# SPDX-License-Identifier: Apache-2.0
"""Names of tiers that vLLM's model of a request refuses pass it; all else stays as it is."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any, get_args

import pytest
from fastapi import FastAPI
from starlette.types import Message
from vllm.entrypoints.openai.responses.api_router import router
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest

from vllm_qllm.api.tier_names import TierNames, rewritten, strict_routes
from vllm_qllm.config import ALIASES, CARRIER, PriorityConfig

CONFIG = PriorityConfig(service_tiers={"bulk": "best_effort"})
NAMES = get_args(ResponsesRequest.model_fields["service_tier"].annotation)


def test_the_routes_are_found() -> None:
    app = FastAPI()
    app.include_router(router)
    assert strict_routes(app) == {"/v1/responses": NAMES}
    assert set(NAMES) == CONFIG.service_tiers.keys() - {"bulk"}


@pytest.mark.parametrize("tier", [*ALIASES, "bulk"])
def test_a_known_name_passes(tier: str) -> None:
    for more in ({}, {"extra_body": {"service_tier": tier, "a": 1}}, {"extra_body": None}):
        sent = {"input": "\ud800 hi", "service_tier": tier} | more
        found = json.loads(rewritten(CONFIG, json.dumps(sent).encode(), NAMES))
        assert found.pop("extra_body") == (more.get("extra_body") or {}) | {"service_tier": tier}
        assert found == {"input": "\ud800 hi"}
        ResponsesRequest.model_validate(found | {"input": "hi"})


def test_null_is_no_tier() -> None:
    assert json.loads(rewritten(CONFIG, b'{"input": "hi", "service_tier": null}', NAMES)) == {
        "input": "hi"
    }


@pytest.mark.parametrize(
    "sent",
    [
        *({"service_tier": tier} for tier in (*NAMES, "cheap", 5, ["fast"], {"fast": 1}, True)),
        {"metadata": {"service_tier": "fast"}},
        {"service_tier": "fast", "extra_body": {"service_tier": "flex"}},
        {"service_tier": "fast", "extra_body": [1]},
        ["service_tier"],
        "service_tier",
    ],
)
def test_what_stays_as_it_is(sent: Any) -> None:
    body = json.dumps(sent).encode() + b"  "
    assert rewritten(CONFIG, body, NAMES) == body


@pytest.mark.parametrize(
    "body", [b"", b'{"service_tier": "fast"', b'"service_tier"[' * 9000, b"\xff"]
)
def test_what_is_no_json_stays_as_it_is(body: bytes) -> None:
    assert rewritten(CONFIG, body, NAMES) == body


def passed(*messages: Message, path: str = "/v1/responses", carried: bool = True) -> list[Any]:
    """What the application receives and the length that it is told."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(dict(scope["headers"])[b"content-length"])
        seen.extend([await receive() for _ in messages])

    left = list(messages)

    async def receive() -> Message:
        return left.pop(0) if left else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        raise AssertionError(message)

    config = SimpleNamespace(additional_config={CARRIER: CONFIG.to_dict()} if carried else {})
    client = SimpleNamespace(vllm_config=config)
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "headers": [(b"content-length", b"24")],
        "app": SimpleNamespace(state=SimpleNamespace(engine_client=client)),
    }
    asyncio.run(TierNames(app, {"/v1/responses": NAMES})(scope, receive, send))
    return seen


def parts(*bodies: bytes) -> list[Message]:
    last = len(bodies) - 1
    return [
        {"type": "http.request", "body": body, "more_body": number < last}
        for number, body in enumerate(bodies)
    ]


def test_a_body_in_parts_comes_whole() -> None:
    new = b'{"extra_body": {"service_tier": "fast"}}'
    length, first, then = passed(*parts(b'{"service_ti', b'er": "fast"}'))
    assert first == {"type": "http.request", "body": new, "more_body": False}
    assert length == str(len(new)).encode()
    assert then == {"type": "http.disconnect"}


def test_a_client_that_goes_away_is_noticed() -> None:
    gone: Message = {"type": "http.disconnect"}
    assert passed(parts(b"{", b"")[0], gone)[1:] == [gone, gone]


def test_other_paths_and_servers_without_a_policy_are_left_alone() -> None:
    sent = parts(b'{"service_ti', b'er": "fast"}')
    assert passed(*sent, path="/v1/models") == [b"24", *sent]
    assert passed(*sent, carried=False) == [b"24", *sent]
