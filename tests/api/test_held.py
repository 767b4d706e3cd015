# SPDX-License-Identifier: Apache-2.0
"""What the engine is asked for on behalf of a request has the priority that it was given."""

from __future__ import annotations

import ast
import asyncio
import inspect
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import vllm.entrypoints
from vllm.engine.protocol import EngineClient
from vllm.entrypoints.openai.responses.serving import OpenAIServingResponses
from vllm.sampling_params import SamplingParams
from vllm.v1.engine.async_llm import AsyncLLM

from vllm_qllm.api.held import METHODS, HeldClient, held
from vllm_qllm.api.serving import ENTRIES, TRANSLATED

ROOT = Path(vllm.entrypoints.__file__).parent
# Modules that ask the engine to work, and the entry of the handler by which requests come to them.
BY_ENTRY = {
    "openai/chat_completion/serving.py": "create_chat_completion",
    "openai/chat_completion/batch_serving.py": "create_batch_chat_completion",
    "openai/completion/serving.py": "create_completion",
    "openai/responses/serving.py": "create_responses",
    "scale_out/token_in_token_out/serving.py": "serve_tokens",
    "generate/label_reads.py": "create_generative_scoring",
    "generate/structured_decisions/strategies.py": "create_decision",
    # Part of every handler of chats and completions.
    "generate/beam_search/online.py": "create_chat_completion",
}
OTHERS = {
    "pooling/base/serving.py": "pools, and a policy is for models that generate",
    "speech_to_text/base/serving.py": "runs with priority 0, which is looked at by its route",
    "speech_to_text/realtime/connection.py": "as above",
}


def asks_the_engine(source: str) -> bool:
    """Whether a module calls a method of an engine's client that takes a priority."""
    return any(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in METHODS
        and ast.unparse(node.func.value).rpartition(".")[2] == "engine_client"
        for node in ast.walk(ast.parse(source))
    )


def test_every_module_that_asks_the_engine_is_known() -> None:
    asking = {
        str(path.relative_to(ROOT))
        for path in ROOT.rglob("*.py")
        if asks_the_engine(path.read_text())
    }
    assert asking == BY_ENTRY.keys() | OTHERS.keys()
    assert set(BY_ENTRY.values()) == set(ENTRIES)


# Who makes another API's request into one of chats, and where its handler then comes in.
MAKERS = {
    "anthropic/serving.py": "create_messages",
    "cohere/serving.py": "create_chat_v2",
    "launchers/run_batch.py": "",  # of a line, which says what it says
    "openai/chat_completion/protocol.py": "",  # single chats of a batch, which keeps its priority
    "scale_out/render/serving.py": "",  # renders: the client sends what it gets
}
MADE = ("ChatCompletionRequest", "CompletionRequest", "ResponsesRequest", "GenerateRequest")


def test_every_translation_of_requests_is_known() -> None:
    """What these lose of a request is put in again by ``heard``, from what the client sent."""
    makers = set()
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if called.partition(".")[0] in MADE:
                makers.add(str(path.relative_to(ROOT)))
    assert makers == MAKERS.keys()
    assert {method for method in MAKERS.values() if method} == set(TRANSLATED)
    for path, method in MAKERS.items():
        if method:
            (found,) = (
                node
                for node in ast.walk(ast.parse((ROOT / path).read_text()))
                if isinstance(node, ast.AsyncFunctionDef) and node.name == method
            )
            assert "self.create_chat_completion(chat_req, raw_request)" in ast.unparse(found)


@pytest.mark.parametrize("client", [EngineClient, AsyncLLM])
def test_every_method_that_takes_a_priority_is_held(client: type) -> None:
    taking = {
        name
        for name, method in inspect.getmembers(client, inspect.isfunction)
        if not name.startswith("_") and "priority" in inspect.signature(method).parameters
    }
    assert taking and taking <= set(METHODS)
    for name in taking:  # by name, as it is put in
        kind = inspect.signature(getattr(client, name)).parameters["priority"].kind
        assert kind in (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Engine:
    """Notes the priorities that it is asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.errored = False

    async def generate(self, *args: Any, priority: int = 0, **kwargs: Any) -> AsyncIterator[Any]:
        self.asked.append(priority)
        yield SimpleNamespace(metrics=None)


class Turns:
    """A conversation whose model calls a built-in tool twice."""

    left = 2

    def append_output(self, output: Any) -> None:
        pass

    def need_builtin_tool_call(self) -> bool:
        self.left -= 1
        return self.left >= 0

    async def call_tool(self) -> list[Any]:
        return []

    def append_tool_output(self, output: Any) -> None:
        pass


@pytest.mark.parametrize("priority", [1, 0, -(2**63)])
def test_every_turn_of_a_response_has_its_priority(priority: int) -> None:
    handler = OpenAIServingResponses.__new__(OpenAIServingResponses)
    engine = Engine()
    handler.engine_client: Any = engine  # type: ignore[misc]
    handler.model_config = SimpleNamespace(max_model_len=64)  # type: ignore[assignment]
    handler.request_logger = None

    async def turns(serving: Any) -> None:
        turns = serving._generate_with_builtin_tools(
            "id", {"prompt_token_ids": [1]}, SamplingParams(), Turns(), priority=priority
        )
        async for _ in turns:
            pass

    asyncio.run(turns(handler))
    assert engine.asked == [priority, priority - 1, priority - 1], "vLLM does so no more"
    engine.asked.clear()
    asyncio.run(turns(held(handler, priority)))
    assert engine.asked == [priority] * 3


def test_a_handler_of_one_request_shares_what_the_handler_stores() -> None:
    handler = SimpleNamespace(engine_client=Engine(), store={})
    own = held(handler, 3)
    own.store["response"] = 1
    assert handler.store == {"response": 1}
    assert isinstance(own.engine_client, HeldClient) and own.engine_client.errored is False
    assert own._get_priority(None) == 3 and not hasattr(handler, "_get_priority")
