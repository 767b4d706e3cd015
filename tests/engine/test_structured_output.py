# SPDX-License-Identifier: Apache-2.0
"""Grammars on both sides of a suspension: each step keeps its own mask."""

from __future__ import annotations

import re
import time

import pytest
from transformers import AutoTokenizer
from vllm.sampling_params import StructuredOutputsParams

from tests.engine.scripted import BE, LS, EngineFor, ScriptedEngine
from tests.engine.test_token_equality import assert_same, prompt

LETTERS, DIGITS = "[a-f]{12}", "[0-9]{12}"


def add(engine: ScriptedEngine, seed: int, length: int, regex: str, priority: int) -> str:
    grammar = StructuredOutputsParams(regex=regex)
    # The front end chooses the backend when it checks a request; here there is none.
    grammar._backend = "xgrammar"
    request_id = engine.add(prompt(seed, length), 12, priority, structured_outputs=grammar)
    request = engine.core.scheduler.requests[request_id]
    deadline = time.monotonic() + 30
    while not request.structured_output_request.grammar and time.monotonic() < deadline:
        time.sleep(0.01)
    return request_id


@pytest.mark.covers("Structured output: regex", "eager", suspended=True)
@pytest.mark.parametrize("executor", ["uni", "mp"])
def test_grammars_do_not_mix(engine_for: EngineFor, executor: str) -> None:
    engine = engine_for(distributed_executor_backend=executor)
    text = AutoTokenizer.from_pretrained(engine.core.vllm_config.model_config.model).decode
    expected = []
    for seed, length, regex in ((1, 250, LETTERS), (2, 60, DIGITS)):
        engine.reset()
        request_id = add(engine, seed, length, regex, LS)
        engine.run()
        result = engine.results[request_id]
        assert re.fullmatch(regex, text(result.tokens)), result.tokens
        expected.append(result)
    engine.reset()
    ids = [add(engine, 1, 250, LETTERS, BE)]
    stops = 0

    def arrive() -> None:
        nonlocal stops
        stops += 1
        # Once in its prefill, once in the decode of a letter.
        if stops in (2, 40):
            ids.append(add(engine, 2, 60, DIGITS, LS))

    engine.on_suspended = arrive
    engine.run()
    assert len(ids) == 3
    for number, request_id in enumerate(ids):
        assert_same(engine.results[request_id], expected[min(number, 1)], f"request {number}")
    engine.reset()
