# SPDX-License-Identifier: Apache-2.0
"""Routes that vLLM serves for some models only heed what a request says of its urgency.

``/v1/systemone`` is for families whose tokenizer has a token for each answer, ``/cohere/v2/chat``
for a server that is told so and finds Cohere's SDK.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.models.model import make
from tests.serve.server import MODEL, STRICT, Server, serve
from tests.serve.test_http import BE, LS, ended, wait_for

pytestmark = [pytest.mark.server, pytest.mark.thorough]

ANSWERS = ("yes", "no")
# It ends with a token of its own, so that an answer is the first token behind that.
TEMPLATE = "{% for message in messages %}{{ message['content'] }}</s>{% endfor %}"
# What a request says, its header, and the class that it gets.
SAID: list[tuple[dict[str, Any], str | None, str]] = [
    ({}, None, LS),
    ({"priority": 5}, None, BE),
    ({"priority": -5}, None, LS),
    ({"service_tier": "flex"}, None, BE),
    ({"service_tier": "priority"}, None, LS),
    ({"extra_body": {"priority": 5}}, None, BE),
    ({}, "5", BE),
    ({"priority": 5}, "-5", LS),
]


def let_it_answer(model: Path) -> None:
    """Give two of the tokens that only round a tiny model's vocabulary up the texts of answers."""
    file = model / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    vocab = tokenizer["model"]["vocab"]
    spare = sorted(vocab, key=vocab.get)[-len(ANSWERS) :]
    for name, answer in zip(spare, ANSWERS, strict=True):
        vocab[answer] = vocab.pop(name)
        token = dict(tokenizer["added_tokens"][0], id=vocab[answer], content=answer, special=False)
        tokenizer["added_tokens"].append(token)
    file.write_text(json.dumps(tokenizer))


@pytest.fixture(scope="module")
def deciding(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of a model of such a family; its weights do not matter."""
    folder = tmp_path_factory.mktemp("deciding")
    model = make("tiny-llama", folder / "model")
    let_it_answer(model)
    family = json.dumps({"architectures": ["Qwen3ForCausalLM"]})
    options = ("--hf-overrides", family, "--load-format", "dummy", "--chat-template", TEMPLATE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_ENABLE_COHERE_API", "1")
        with serve(model, folder / "log", *STRICT, *options) as running:
            yield running


def heeds(server: Server, path: str, body: dict[str, Any], count: int) -> None:
    """Each of these requests of ``count`` sequences is served in the class that it asks for."""
    for fields, header, cls in SAID:
        before = ended(server)
        headers = {} if header is None else {"X-Vllm-Priority": header}
        answer = httpx.post(server.url + path, json=body | fields, headers=headers, timeout=60)
        assert answer.status_code == 200, (fields, answer.text)
        wait_for(server, before, cls, count)
    before = ended(server)
    contradiction = {"priority": 1, "extra_body": {"priority": 2}}
    assert httpx.post(server.url + path, json=body | contradiction).status_code == 400
    assert ended(server) == before


def test_decisions(deciding: Server) -> None:
    question = {"type": "noul", "instructions": "is it so?"}
    body = {"model": MODEL, "state": "it is", "questions": {"a": question, "b": question}}
    heeds(deciding, "/v1/systemone", body, count=2)


@pytest.mark.skipif(
    importlib.util.find_spec("cohere") is None,
    reason="vLLM serves the route only where Cohere's SDK is installed",
)
def test_chats_of_cohere(deciding: Server) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
    heeds(deciding, "/cohere/v2/chat", body, count=1)
