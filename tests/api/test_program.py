# SPDX-License-Identifier: Apache-2.0
"""A name of a program that would keep the engine's thread is refused before the engine."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from vllm.entrypoints.scale_out.token_in_token_out.protocol import GenerateRequest
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import SamplingParams

from tests.api.test_priority import CONFIG, KINDS, Handler, body
from vllm_qllm.api.program import check_program
from vllm_qllm.api.serving import teach
from vllm_qllm.program_id import MOST_CHARS

BAD: list[Any] = ["x" * (MOST_CHARS + 1), "x" * 10**6, ["a"], ["a"] * 10**6]
GOOD: list[Any] = ["x" * MOST_CHARS, "", 7, 0.5]


def naming(kind: str, name: Any) -> Any:
    """A request that names a program."""
    if kind != "tokens":
        request = body(kind)
        request.vllm_xargs = {"program_id": name}  # as what a translation has lost is put in
        return request
    params = SamplingParams(extra_args={"program_id": name})
    return GenerateRequest(token_ids=[1], sampling_params=params)


@pytest.mark.parametrize("kind", [*KINDS, "tokens"])
@pytest.mark.parametrize("name", BAD, ids=lambda name: type(name).__name__)
def test_what_no_program_is_called_is_refused_in_words(kind: str, name: Any) -> None:
    with pytest.raises(VLLMValidationError) as refused:
        check_program(naming(kind, name))
    assert str(refused.value.parameter).endswith(".program_id")
    text = str(refused.value)
    assert str(MOST_CHARS) in text and len(text) < 500
    assert repr(name)[:50] in text


@pytest.mark.parametrize("kind", [*KINDS, "tokens"])
@pytest.mark.parametrize("name", [*GOOD, None], ids=lambda name: type(name).__name__)
def test_any_other_is_not(kind: str, name: Any) -> None:
    check_program(naming(kind, name))
    check_program(body())


@pytest.mark.parametrize("name", BAD, ids=lambda name: type(name).__name__)
def test_a_handler_with_a_policy_asks(name: Any) -> None:
    handler = Handler({"priority": CONFIG.to_dict()})
    teach(handler)
    request = body()
    request.vllm_xargs = {"program_id": name}
    with pytest.raises(VLLMValidationError, match="program_id"):
        asyncio.run(handler.create_batch_chat_completion(request))
    assert handler.got == []
