# SPDX-License-Identifier: Apache-2.0
"""``service_tier`` of an answer names the tier that served it, in each API, whole and streamed."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from typing import Any

import anthropic
import openai
import pytest

from tests.serve.answers import Answer, streamed, whole
from tests.serve.server import Server

pytestmark = [pytest.mark.server, pytest.mark.covers("service_tier", "eager")]

BODIES: list[tuple[str, dict[str, Any]]] = [
    ("/completions", {"prompt": "hi", "max_tokens": 3}),
    ("/chat/completions", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}),
    ("/responses", {"input": "hi", "max_output_tokens": 3, "store": False}),
]
SERVED: list[tuple[dict[str, Any], str]] = [
    ({}, "default"),
    ({"service_tier": "auto"}, "default"),
    ({"service_tier": "default"}, "default"),
    ({"service_tier": "priority"}, "priority"),
    ({"service_tier": "scale"}, "scale"),
    ({"service_tier": "flex"}, "flex"),
    ({"priority": 5}, "flex"),
    ({"priority": -5}, "default"),
    ({"priority": 5, "service_tier": "priority"}, "flex"),
    ({"priority": -5, "service_tier": "priority"}, "priority"),
    ({"service_tier": "fast"}, "priority"),
    ({"service_tier": "fast", "priority": 5}, "flex"),
    ({"service_tier": "standard_only"}, "default"),
    ({"service_tier": None}, "default"),
    ({"extra_body": {"service_tier": "flex"}}, "flex"),
    ({"extra_body": {"priority": 5}}, "flex"),
]
# What a message says, and its tier by the names of Anthropic's API.
MESSAGES: list[tuple[dict[str, Any], str]] = [
    ({}, "standard"),
    ({"service_tier": "auto"}, "standard"),
    ({"service_tier": "standard_only"}, "standard"),
    ({"service_tier": "fast"}, "priority"),
    ({"service_tier": "cheap"}, "standard"),
    ({"service_tier": "flex"}, "batch"),
    ({"priority": 5}, "batch"),
    ({"priority": 5, "service_tier": "auto"}, "batch"),
    ({"extra_body": {"priority": 5}}, "batch"),
]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(("path", "body"), BODIES, ids=[path for path, _ in BODIES])
def test_the_tier_that_served(
    server: Server, path: str, body: dict[str, Any], stream: bool
) -> None:
    async def ask() -> list[Answer]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            how = streamed if stream else whole
            return [await how(client, path, body | fields) for fields, _ in SERVED]

    # All of the chunks, or events with a response, say the same.
    assert [answer.tiers for answer in asyncio.run(ask())] == [{tier} for _, tier in SERVED]


def test_the_header_decides(server: Server) -> None:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    answer = client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": "hi"}],
        max_tokens=2,
        service_tier="priority",
        extra_headers={"X-Vllm-Priority": "5"},
    )
    assert answer.service_tier == "flex"


@pytest.mark.covers("Messages (Anthropic)", "eager")
def test_a_message_names_its_tier(server: Server) -> None:
    body: Any = {"model": "tiny", "max_tokens": 8, "messages": [{"role": "user", "content": "hi"}]}
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as client:
        texts = set()
        for fields, tier in MESSAGES:
            greedy = {"temperature": 0} | fields
            whole = client.messages.create(**body, extra_body=greedy)
            with client.messages.stream(**body, extra_body=greedy) as stream:
                started = next(event for event in stream if event.type == "message_start")
                streamed = stream.get_final_message()
            assert whole.usage.service_tier == started.message.usage.service_tier == tier, fields
            assert whole.usage.output_tokens == streamed.usage.output_tokens
            texts |= {whole.content[0].to_json(), streamed.content[0].to_json()}
        assert len(texts) == 1
        for fields in ({"priority": "high"}, {"priority": 1, "extra_body": {"priority": 2}}):
            with pytest.raises(anthropic.BadRequestError, match="priority is"):
                client.messages.create(**body, extra_body=fields)


def test_what_is_made_of_chats_reads_the_chunks(server: Server) -> None:
    """Anthropic's API is answered by vLLM's handler of chats, and parses what that streams."""
    body = {"model": "tiny", "max_tokens": 8, "messages": [{"role": "user", "content": "hi"}]}

    def post(stream: bool) -> str:
        data = json.dumps(body | {"stream": stream, "temperature": 0}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{server.url}/v1/messages", data, headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return str(answer.read().decode())

    lines = [line for line in post(True).splitlines() if line.startswith("data: {")]
    events = [json.loads(line.removeprefix("data: ")) for line in lines]
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    (block,) = json.loads(post(False))["content"]
    assert "".join(delta["text"] for delta in deltas) == block["text"]
    assert events[-1]["type"] == "message_stop"
