# SPDX-License-Identifier: Apache-2.0
"""A request whose grammar costs the engine too much is told so, in a whole answer and in a stream.

Each token of this one takes longer than the one before it: there are ever more ways to read it.
"""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from benchmarks.models.tokenizer import EOS
from tests.serve.server import MODEL, Server
from vllm_qllm.config import PriorityClass

pytestmark = [pytest.mark.server, pytest.mark.timeout(240)]

COSTLY = 'root ::= s\ns ::= s s | s s s | "a" | "b"'
BODY = {
    "model": MODEL,
    "max_tokens": 1900,
    "priority": 5,
    "structured_outputs": {"grammar": COSTLY},
    "logit_bias": {str(EOS): -100},
}
ROUTES: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": "hi"},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hi"}]},
}


def explains(error: dict[str, Any]) -> None:
    """Status 400, which field, how much it took, what is allowed, and by which setting."""
    allowed = PriorityClass("best_effort").grammar_ms
    assert (error["code"], error["param"]) == (400, "structured_outputs")
    assert error["type"] == "BadRequestError"
    for part in ("the grammar took", f"allowed: {allowed:g} ms", "classes[best_effort].grammar_ms"):
        assert part in error["message"]


@pytest.mark.parametrize("path", ROUTES)
def test_a_whole_answer(server: Server, path: str) -> None:
    answer = httpx.post(server.url + path, json=BODY | ROUTES[path], timeout=200)
    assert answer.status_code == 400, answer.text
    explains(answer.json()["error"])


@pytest.mark.parametrize("path", ROUTES)
def test_a_stream(server: Server, path: str) -> None:
    """What has been said stays said; the reason is the last event that holds anything."""
    body = BODY | ROUTES[path] | {"stream": True}
    with httpx.stream("POST", server.url + path, json=body, timeout=200) as answer:
        assert answer.status_code == 200
        events = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    *chunks, last = [json.loads(event) for event in events if event != "[DONE]"]
    assert chunks and all("error" not in chunk for chunk in chunks)
    explains(last["error"])
