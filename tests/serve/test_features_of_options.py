# SPDX-License-Identifier: Apache-2.0
"""Features of requests for which a server needs options: adapters, embeddings, tool calls."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Iterator

import pytest
import torch

from benchmarks.models.adapters import RANK, make_adapter
from benchmarks.models.model import SHAPES, make
from tests.serve.features import PROMPT, TOOL_CALLS, completion, ends
from tests.serve.rivals import Question, contest
from tests.serve.server import STRICT, Server, serve

pytestmark = pytest.mark.server

BASE = "tiny-llama"
TIERS = ["flex", "priority"]


@pytest.fixture(scope="module")
def capable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the policy strict and all of these options at once.

    Prompts take several steps here, so that what belongs to a prompt has to last.
    """
    folder = tmp_path_factory.mktemp("capable")
    adapters = [f"{name}={make_adapter(BASE, n, folder / name)}" for n, name in enumerate("ab")]
    options = ["--enable-lora", "--max-lora-rank", f"{RANK}", "--lora-modules", *adapters]
    options += ["--enable-prompt-embeds", "--enable-auto-tool-choice"]
    options += ["--tool-call-parser", "hermes", "--max-num-batched-tokens", "512"]
    with serve(make(BASE, folder / BASE), folder / "log", *STRICT, *options) as running:
        yield running


@pytest.mark.covers("Tool calls", "eager", suspended=True)
@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize(
    "question", [pytest.param(question, id=name) for name, question in TOOL_CALLS]
)
def test_tool_calls(capable: Server, question: Question, tier: str) -> None:
    asyncio.run(contest(capable, question, tier))


def embeddings(length: int) -> str:
    """As vLLM takes them: a tensor as torch saves it, in base 64."""
    values = torch.randn(length, SHAPES[BASE].hidden, generator=torch.Generator().manual_seed(1))
    file = io.BytesIO()
    torch.save(values, file)
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.covers("Prompt embeddings", "eager", suspended=True)
@pytest.mark.parametrize("tier", TIERS)
def test_prompt_embeddings(capable: Server, tier: str) -> None:
    body = PROMPT | {"prompt": None, "prompt_embeds": embeddings(1900), "logprobs": 2}
    question = Question("/completions", body, ends)
    asyncio.run(contest(capable, question, tier))


@pytest.mark.covers("LoRA adapters", "eager", suspended=True)
@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("rival", ["a", "b"], ids=["same adapter", "another adapter"])
def test_adapters(capable: Server, rival: str, tier: str) -> None:
    # Not rivals without an adapter: on the CPU vLLM 0.32.0 itself computes a request without one
    # wrongly when it shares a step with one that has an adapter.
    question = completion(ends, logprobs=2, model="a")
    asyncio.run(contest(capable, question, tier, model=rival))
