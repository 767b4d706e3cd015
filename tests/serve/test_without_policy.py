# SPDX-License-Identifier: Apache-2.0
"""A server without a policy: its answers are those of one with a policy, and all else is vLLM's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import httpx
import openai
import pytest
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest

from tests.serve.answers import Json, assert_same, streamed, whole
from tests.serve.features import BEAM_SEARCH, QUESTIONS
from tests.serve.server import MODEL, Server, serve
from tests.serve.test_fuzz import PATHS
from vllm_qllm.config import ALIASES

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def plain(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The plugin is installed, but nothing asks for a policy."""
    # Without a policy a seeded prompt that takes several steps ends vLLM 0.32.0 on the CPU.
    whole_prompts = ("--max-num-batched-tokens", "8192")
    log = tmp_path_factory.mktemp("plain") / "log"
    with serve(tiny_model, log, *whole_prompts) as running:
        yield running


def client_of(server: Server) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def test_every_feature_answers_the_same(plain: Server, server: Server) -> None:
    questions = [question for _, _, question in QUESTIONS]
    questions += [question for _, question in BEAM_SEARCH]

    async def compare() -> None:
        async with client_of(plain) as theirs, client_of(server) as ours:
            for question in questions:
                assert_same(await question.ask(ours), await question.ask(theirs))

    asyncio.run(compare())


def test_nothing_is_below_qllm(plain: Server) -> None:
    with pytest.raises(OSError, match="404"):
        plain.get("/qllm/timeline")
    assert "/qllm" not in plain.get("/openapi.json")


CHAT: Json = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
RESPONSE: Json = {"input": "hi", "max_output_tokens": 2, "store": False}


def test_service_tier_is_left_as_vllm_has_it(plain: Server) -> None:
    async def ask() -> None:
        async with client_of(plain) as client:
            for how in (whole, streamed):
                answer = await how(client, "/chat/completions", CHAT | {"service_tier": "flex"})
                assert answer.tiers == {None}
                answer = await how(client, "/responses", RESPONSE)
                assert answer.tiers == {"auto"}

    asyncio.run(ask())


# Generates, and has no priority in its description.
ROUTES = PATHS | {
    "/v1/messages": {"messages": CHAT["messages"], "max_tokens": 1},
    "/invocations": {"prompt": "hi", "max_tokens": 1},
}
STRICT_TIERS = get_args(ResponsesRequest.model_fields["service_tier"].annotation)
SAID = [*STRICT_TIERS, *ALIASES, "cheap", "", 5, ["flex"], None]


@pytest.mark.parametrize("path", ROUTES)
def test_no_tier_that_vllm_takes_is_refused(plain: Server, server: Server, path: str) -> None:
    def statuses(one: Server) -> list[int]:
        with httpx.Client(base_url=one.url, timeout=60) as client:
            bodies = [{"model": MODEL} | ROUTES[path] | {"service_tier": tier} for tier in SAID]
            return [client.post(path, json=body).status_code for body in bodies]

    theirs = dict(zip(map(str, SAID), statuses(plain), strict=True))
    assert {theirs[tier] for tier in STRICT_TIERS} == {200}
    # A policy knows more names, and no tier at all.
    more = dict.fromkeys([*ALIASES, "None"], 200)
    assert dict(zip(map(str, SAID), statuses(server), strict=True)) == theirs | more
    if path != "/v1/responses":
        assert set(theirs.values()) == {200}


def test_what_is_not_served_is_answered_alike(plain: Server, server: Server) -> None:
    async def ask(one: Server) -> tuple[int, str]:
        async with client_of(one) as client:
            with pytest.raises(openai.APIStatusError) as refused:
                await client.embeddings.create(model="tiny", input="hi")
            return refused.value.status_code, refused.value.message

    assert asyncio.run(ask(server)) == asyncio.run(ask(plain))


def test_no_metric_of_ours(plain: Server) -> None:
    assert plain.samples() == {}
    assert plain.samples("vllm:")
