# SPDX-License-Identifier: Apache-2.0
"""For every handler of vLLM's it is settled who finds out the class and counts the sequences."""

from __future__ import annotations

import ast
import asyncio
import importlib
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import vllm.entrypoints
from fastapi import Request
from vllm.entrypoints.generate.generative_scoring.serving import (
    GenerativeScoringRequest,
    ServingGenerativeScoring,
)
from vllm.entrypoints.generate.structured_decisions.protocol import StructuredDecisionRequest
from vllm.entrypoints.openai.chat_completion.protocol import (
    BatchChatCompletionRequest,
    ChatCompletionRequest,
)
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.entrypoints.scale_out.token_in_token_out.protocol import GenerateRequest
from vllm.entrypoints.serve.engine.serving import BaseServing
from vllm.exceptions import VLLMValidationError

from tests.access.access_controls import config_with
from vllm_qllm.access.access_control import AccessControl
from vllm_qllm.access.middleware import PATH
from vllm_qllm.access.tenant_request import SCOPE_KEY, TenantRequest
from vllm_qllm.api.handlers import HANDLERS, Handlers
from vllm_qllm.api.sequences import sequences
from vllm_qllm.api.serving import ENTRIES
from vllm_qllm.config import CARRIER, ConfigError, PriorityConfig

ENTRYPOINTS = Path(vllm.entrypoints.__file__).parent
# Handlers without an entry of ours, and why they need none.
SETTLED = {
    "AnthropicServingMessages": "goes through create_chat_completion",
    "CohereServingChatV2": "goes through create_chat_completion",
    "SpeechToTextBaseServing": "RouteKind.DEFAULT",
    "OpenAISpeechToText": "RouteKind.DEFAULT",
    "OpenAIServingTranscription": "RouteKind.DEFAULT",
    "OpenAIServingTranslation": "RouteKind.DEFAULT",
    "OpenAIServingRealtime": "RouteKind.DEFAULT",
    "GenerateBaseServing": "the base of others",
    "ServingTokenization": "generates nothing",
    "ServingRender": "generates nothing",
    "ServingDerender": "generates nothing",
}
# What asks the engine's client, and for whom.
REACH = {
    "generate/beam_search/online.py": "chats and completions",
    "generate/label_reads.py": "scoring and decisions",
    "generate/structured_decisions/strategies.py": "decisions",
    "openai/chat_completion/batch_serving.py": "itself",
    "openai/chat_completion/serving.py": "itself",
    "openai/completion/serving.py": "itself",
    "openai/responses/serving.py": "itself",
    "pooling/base/serving.py": "RouteKind.OPERATOR: no policy serves a pooling model",
    "scale_out/token_in_token_out/serving.py": "itself",
    "speech_to_text/base/serving.py": "RouteKind.DEFAULT",
    "speech_to_text/realtime/connection.py": "RouteKind.DEFAULT",
}


def subclasses(cls: type) -> Iterator[type]:
    for sub in cls.__subclasses__():
        yield sub
        yield from subclasses(sub)


def test_every_handler_has_an_entry_or_a_reason() -> None:
    for file in sorted(ENTRYPOINTS.rglob("*serving.py")):
        if "cohere" in file.parts:
            continue  # its SDK is not installed; it is read below
        name = ".".join(file.relative_to(ENTRYPOINTS).with_suffix("").parts)
        importlib.import_module(f"vllm.entrypoints.{name}")
    handlers = {
        handler
        for handler in subclasses(BaseServing)
        if handler.__module__.startswith("vllm.entrypoints")
        and ".pooling." not in handler.__module__
    }
    assert len(handlers) >= 10
    known = {h for h in handlers if any(hasattr(h, entry) for entry in ENTRIES)}
    assert {h.__name__ for h in handlers - known} <= SETTLED.keys()
    # Those which the seam of the base does not reach are found in the server's state.
    from vllm.entrypoints.generate.base.serving import GenerateBaseServing

    others = {h.__name__ for h in known if not issubclass(h, GenerateBaseServing)}
    assert len(others) == len(HANDLERS) == 2


def test_nothing_else_asks_the_engine() -> None:
    found = set()
    for file in sorted(ENTRYPOINTS.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Call(
                    func=ast.Attribute(attr="generate" | "encode" | "add_request", value=v)
                ):
                    if "engine" in ast.unparse(v) and "llm_engine" not in ast.unparse(v):
                        found.add(str(file.relative_to(ENTRYPOINTS)))
                case ast.Call(func=ast.Attribute(attr="beam_search" | "next_token_label_reads")):
                    found.add(str(file.relative_to(ENTRYPOINTS)))
    found -= {file for file in found if "offline" in file or file == "llm.py"}
    assert len(found) >= 8
    assert found <= REACH.keys(), "whose class, whose priority, how many sequences?"


TEXT, IDS = "hi", [3, 4]
CHAT = [{"role": "user", "content": "hi"}]
# A request, and how many sequences it is.
COUNTED: list[tuple[Any, int]] = [
    (ChatCompletionRequest(messages=CHAT), 1),
    (ChatCompletionRequest(messages=CHAT, n=3), 3),
    (ChatCompletionRequest(messages=CHAT, n=None), 1),
    (BatchChatCompletionRequest(messages=[CHAT] * 4), 4),
    (CompletionRequest(prompt=TEXT, n=2), 2),
    (CompletionRequest(prompt=[TEXT] * 3, n=2), 6),
    (CompletionRequest(prompt=IDS), 1),
    (CompletionRequest(prompt=[IDS] * 4), 4),
    (CompletionRequest(prompt=TEXT, prompt_embeds=[b"", b""]), 3),
    (ResponsesRequest(input=TEXT), 1),
    (GenerateRequest(token_ids=IDS, sampling_params={"n": 5}), 5),
    (GenerativeScoringRequest(query=TEXT, items=[TEXT] * 400, label_token_ids=[1]), 400),
    (GenerativeScoringRequest(query=TEXT, items=[IDS] * 2, label_token_ids=[1]), 2),
    (StructuredDecisionRequest(state=TEXT, questions={str(i): {"type": "x"} for i in range(7)}), 7),
    # What an API does not have, vLLM ignores.
    (ResponsesRequest(input=TEXT, n=10**17, items=[1, 2], questions={}, prompt=None), 1),
    (ChatCompletionRequest(messages=CHAT, items=[1, 2], questions={}, prompt=[TEXT] * 9), 1),
    (GenerativeScoringRequest(query=TEXT, items=[TEXT], label_token_ids=[1], n="x"), 1),
]


@pytest.mark.parametrize(
    ("request_", "number"), COUNTED, ids=lambda v: v if isinstance(v, int) else type(v).__name__
)
def test_sequences_are_counted(request_: Any, number: int) -> None:
    handler = SimpleNamespace(strategy=SimpleNamespace(num_requests=len))
    found = sequences(request_, handler)
    assert (found, type(found)) == (number, int)


@pytest.mark.parametrize("n", [10**17, 10**309, 2**63, -1, 0, 16385])
def test_a_number_that_vllm_refuses_is_refused_in_its_words(n: int) -> None:
    for request in (
        ChatCompletionRequest(messages=CHAT, n=n),
        CompletionRequest(prompt=[TEXT, TEXT], n=n),
    ):
        with pytest.raises(VLLMValidationError) as ours:
            sequences(request)
        with pytest.raises(VLLMValidationError) as theirs:
            request.to_sampling_params(10, {})
        assert str(ours.value) == str(theirs.value)


class Scoring(ServingGenerativeScoring):
    """As much of the handler as is looked at."""

    def __init__(self, client: Any) -> None:
        self.engine_client, self.got = client, []

    async def create_generative_scoring(self, request: Any, raw_request: Any = None) -> str:
        self.got.append(request.priority)
        return "done"


TENANTS = {
    "middle": {"classes": {"agent": {"max_concurrent": 2, "min_priority": 0}}},
    "lowered": {"classes": {"batch": {}}, "above": "lower"},
}


def test_scoring_asks_as_all_others_do(tmp_path: Path) -> None:
    config = config_with(tmp_path, TENANTS)
    access = AccessControl(config, None)
    vllm_config = SimpleNamespace(additional_config={CARRIER: config.to_dict()})
    methods = dict.fromkeys(("shutdown", "check_admission", "check_health"), lambda: None)
    processor = SimpleNamespace(process_outputs=None, add_request=None)
    client = SimpleNamespace(vllm_config=vllm_config, output_processor=processor, **methods)
    handler = Scoring(client)
    state = SimpleNamespace(serving_generative_scoring=handler, serving_structured_decisions=None)
    asyncio.run(Handlers().init_state(client, state, Namespace(middleware=[PATH])))

    def ask(tenant: str, header: str | None = None, items: int = 1, **fields: Any) -> Any:
        tenant_request = TenantRequest(
            access, access.tenants_config, tenant, "POST /generative_scoring", "id"
        )
        headers = [(b"x-vllm-priority", header.encode())] if header else []
        scope = {
            "type": "http",
            "headers": headers,
            SCOPE_KEY: tenant_request,
            "path": "/",
            "server": None,
        }
        body = GenerativeScoringRequest(query="", items=[""] * items, label_token_ids=[], **fields)
        answer = asyncio.run(handler.create_generative_scoring(body, Request(scope)))
        tenant_request.close()
        return answer if isinstance(answer, str) else answer.error.code

    assert ask("middle", priority=-100) == 403
    assert ask("middle", priority=-1) == 403
    assert ask("middle", header="-100") == 403
    assert ask("middle", items=3) == 400
    assert handler.got == []
    assert [ask("middle"), ask("middle", priority=5, items=2)] == ["done"] * 2
    assert [ask("lowered", priority=-100), ask("lowered", service_tier="flex")] == ["done"] * 2
    assert handler.got == [0, 5, 10, 10]
    assert access.limiter.numbers("middle", "agent")[0] == 0


def test_tenants_that_nobody_would_look_at_end_the_start(tmp_path: Path) -> None:
    config = PriorityConfig(tenants=str(tmp_path / "tenants.json"))
    client: Any = SimpleNamespace(
        vllm_config=SimpleNamespace(additional_config={CARRIER: config.to_dict()})
    )
    start = Handlers().init_state
    with pytest.raises(ConfigError, match=r"tenants is .*AccessMiddleware among them"):
        asyncio.run(start(client, SimpleNamespace(), Namespace(middleware=["a.B"])))
    asyncio.run(start(client, SimpleNamespace(), Namespace(middleware=["a.B", PATH])))
    for stock in (None, SimpleNamespace(vllm_config=SimpleNamespace(additional_config={}))):
        asyncio.run(start(stock, SimpleNamespace(), Namespace(middleware=[])))
