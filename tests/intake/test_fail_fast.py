# SPDX-License-Identifier: Apache-2.0
"""One mistake is enough: errors do not multiply with the entries of a body, in any route."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from pydantic import BaseModel, ValidationError
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.entrypoints.serve.tokenize.protocol import DetokenizeRequest, TokenizeRequest
from vllm.exceptions import VLLMValidationError

from vllm_qllm.intake.fail_fast import fail_fast

COUNT = 1000
BODIES: dict[str, Any] = {
    "chat": ChatCompletionRequest,
    "completions": CompletionRequest,
    "responses": ResponsesRequest,
    "tokenize": TokenizeRequest,
    "detokenize": DetokenizeRequest,
}
GOOD = {
    "chat": {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]},
    "completions": {"prompt": [[1, 2], [3]], "logit_bias": {"1": 2}},
    "responses": {"input": [{"role": "user", "content": "a"}]},
    "tokenize": {"prompt": "a"},
    "detokenize": {"tokens": [1, 2]},
}


@pytest.fixture(scope="module")
def app() -> FastAPI:
    """An application with vLLM's bodies, before anything is done to it."""
    app = FastAPI()
    for name, body in BODIES.items():
        add(app, name, body)
    return app


def add(app: FastAPI, name: str, body: Any) -> None:
    async def handler(request):  # type: ignore[no-untyped-def]
        return request.model_dump(exclude={"request_id"})

    handler.__annotations__ = {"request": body}
    app.post(f"/{name}")(handler)


def errors(app: FastAPI, name: str, body: dict[str, Any]) -> list[Any]:
    for route in app.routes:
        if isinstance(route, APIRoute) and route.path == f"/{name}":
            try:
                route.body_field._type_adapter.validate_python(body)  # type: ignore[union-attr]
            except ValidationError as error:
                return error.errors(include_url=False)
            except (VLLMValidationError, AttributeError):  # a check before any entry is looked at
                return []
    return []


def bad_bodies(name: str) -> list[dict[str, Any]]:
    """For every field a list of what it does not hold, short enough for one that does."""
    model = BODIES[name]
    models = [model] if isinstance(model, type) else model.__args__
    fields = {field for each in models for field in each.model_fields}
    return [
        GOOD[name] | {field: entries}
        for field in sorted(fields)
        for entries in ([{}] * COUNT, [[{}]] * COUNT, ["a", *[1] * COUNT], [1, *["a"] * COUNT])
    ]


@pytest.mark.parametrize("name", BODIES)
def test_errors_do_not_multiply_with_entries(app: FastAPI, name: str) -> None:
    good = TestClient(app).post(f"/{name}", json=GOOD[name])
    assert good.status_code == 200
    if name != "tokenize":  # its two forms look at no entry when a field is not theirs
        assert max(len(errors(app, name, body)) for body in bad_bodies(name)) >= COUNT
    fresh = FastAPI()
    add(fresh, name, BODIES[name])
    fail_fast(fresh)
    assert max(len(errors(fresh, name, body)) for body in bad_bodies(name)) < COUNT / 2
    assert TestClient(fresh).post(f"/{name}", json=GOOD[name]).json() == good.json()


def test_the_first_mistake_is_the_one_that_was_named_before() -> None:
    class Body(BaseModel):
        numbers: list[int]

    apps = FastAPI(), FastAPI()
    for app in apps:
        add(app, "numbers", Body)
    fail_fast(apps[1])
    stock, ours = (errors(app, "numbers", {"numbers": [1, "x", "y"]}) for app in apps)
    assert (len(stock), len(ours), ours[0]) == (2, 1, stock[0])
