# SPDX-License-Identifier: Apache-2.0
"""Requests that are large in one respect: refused above a limit, and never before urgent ones."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from tests.serve.server import ARGUMENTS, MODEL, Server
from vllm_qllm.access.refusal import is_anthropic
from vllm_qllm.config import PriorityConfig
from vllm_qllm.intake.json_size import COMMAS
from vllm_qllm.intake.limits import Limits
from vllm_qllm.intake.middleware import SMALL_ITEMS

pytestmark = pytest.mark.server

LENGTH = int(ARGUMENTS[ARGUMENTS.index("--max-model-len") + 1])
LIMITS = Limits.of(PriorityConfig(), LENGTH)
CHARS, SEQUENCES, N = LIMITS.prompt_chars[1], LIMITS.sequences[1], LIMITS.n[1]
assert CHARS is not None and SEQUENCES is not None and N is not None
NAME = LIMITS.classes[1]
TIMEOUT = aiohttp.ClientTimeout(total=120)
Reply = tuple[int, str]


async def post(session: aiohttp.ClientSession, server: Server, path: str, body: Any) -> Reply:
    """Status and text of the answer; ``body`` may be encoded already."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    async with session.post(server.url + path, data=data, headers=headers) as answer:
        return answer.status, await answer.text()


def sent(server: Server, path: str, body: Any) -> Reply:
    async def once() -> Reply:
        async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
            return await post(session, server, path, body)

    return asyncio.run(once())


def completion(priority: int, **fields: Any) -> dict[str, Any]:
    body = {"model": MODEL, "prompt": "a", "max_tokens": 1, "temperature": 0}
    return body | {"priority": priority} | fields


def truncated(priority: int, chars: int) -> dict[str, Any]:
    return completion(priority, prompt="ab " * (chars // 3) + "c" * (chars % 3), **CUT)


CUT = {"truncate_prompt_tokens": 8}
# Path, a body of so many, what is counted.
COUNTED = {
    "truncate": ("/v1/completions", lambda n: truncated(5, n), CHARS, "characters"),
    "tokenize": ("/tokenize", lambda n: {"model": MODEL, "prompt": "a" * n}, CHARS, "characters"),
    "detokenize": ("/detokenize", lambda n: {"model": MODEL, "tokens": [97] * n}, CHARS, "ids"),
    "n": ("/v1/completions", lambda n: completion(5, n=n, temperature=1), N, "n is"),
    "prompts": (
        "/v1/completions",
        lambda n: completion(5, prompt=[[97]] * (n // 4), n=4, temperature=1),
        SEQUENCES // 4 * 4,
        "prompts times n",
    ),
}


@pytest.mark.parametrize("what", COUNTED)
def test_the_limit_of_a_class_is_served_and_more_is_refused(server: Server, what: str) -> None:
    path, body, limit, counted = COUNTED[what]
    above = limit + (4 if what == "prompts" else 1)
    status, text = sent(server, path, body(above))
    assert status == 400
    for word in (counted, str(above), str(limit), NAME):
        assert word in text
    if what != "prompts":  # as many sequences as n has
        assert sent(server, path, body(limit))[0] == 200


def test_the_most_urgent_class_has_no_limit_of_its_own(server: Server) -> None:
    assert sent(server, "/v1/completions", truncated(0, CHARS + 1))[0] == 200


def test_a_side_to_truncate_from_makes_any_text_fit(server: Server) -> None:
    body = truncated(5, CHARS + 1) | {"truncation_side": "left"}
    assert sent(server, "/v1/completions", body)[0] == 200


def routes(server: Server) -> list[str]:
    """All paths that take a body, whatever vLLM comes to call them."""
    paths = json.loads(server.get("/openapi.json"))["paths"]
    return sorted(
        path.replace("{", "").replace("}", "")
        for path, methods in paths.items()
        if "post" in methods
    )


def test_every_route_bounds_what_every_field_may_hold(server: Server) -> None:
    most = LIMITS.body_items
    bodies = (
        {"messages": [{"role": "user", "content": "a"}] * (most // 5)},
        {"structured_outputs": {"choice": ["a"] * most}},
        {"logit_bias": {str(i): 1 for i in range(most)}},
        {"anything": [[]] * most},
        {"prompt": [1] * (most * (COMMAS + 1))},
    )

    async def all_of_them() -> dict[str, list[Reply]]:
        async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
            return {
                path: [await post(session, server, path, body) for body in encoded]
                for path in found
            }

    encoded = [json.dumps(body).encode() for body in bodies]
    found = routes(server)
    assert {"/v1/chat/completions", "/v1/completions", "/v1/responses", "/tokenize"} <= set(found)
    for path, replies in asyncio.run(all_of_them()).items():
        for status, text in replies:
            assert (path, status) == (path, 400 if is_anthropic(path) else 413)
            assert str(LIMITS.items_at(path)) in text and "max_body_items" in text


def test_urgent_requests_are_answered_while_large_texts_are_tokenized(server: Server) -> None:
    async def run() -> int:
        async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
            text = {"model": MODEL, "prompt": "ab " * (CHARS // 3)}
            large = [
                asyncio.create_task(post(session, server, "/tokenize", text)) for _ in range(24)
            ]
            await asyncio.wait(large, return_when=asyncio.FIRST_COMPLETED)
            for _ in range(3):
                status, _ = await post(session, server, "/v1/completions", completion(0))
                assert status == 200
            left = sum(not task.done() for task in large)
            assert {status for status, _ in await asyncio.gather(*large)} == {200}
            return left

    # In one queue with them an urgent one comes after all that were there before it.
    assert asyncio.run(run()) > 0


def test_an_urgent_large_request_is_read_before_less_urgent_ones(server: Server) -> None:
    many = 12

    async def run() -> int:
        async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
            chat = {"model": MODEL, "priority": 5, "anything": ["x"] * SMALL_ITEMS}
            chat |= {"messages": [{"role": "user", "content": "a"}] * (LIMITS.body_items // 6)}
            path = "/v1/chat/completions"
            large = [asyncio.create_task(post(session, server, path, chat)) for _ in range(many)]
            await asyncio.wait(large, return_when=asyncio.FIRST_COMPLETED)
            urgent = completion(0, anything=["x"] * SMALL_ITEMS)
            assert (await post(session, server, "/v1/completions", urgent))[0] == 200
            left = sum(not task.done() for task in large)
            # Longer than the model, which is found out after they were read.
            assert {status for status, _ in await asyncio.gather(*large)} == {400}
            return left

    # In the order of their arrival it would be the last one.
    assert asyncio.run(run()) >= many // 2
