# SPDX-License-Identifier: Apache-2.0
"""Every field of SamplingParams, through everything that may happen to its request.

The request's first step is given up for the KV blocks of an urgent one, which takes them; it is
computed again, is suspended at every yield point, rides in steps of the other class and so changes
lanes, loses its blocks once more, and a step in which it decodes is given up, after which it goes
on with the blocks that it has. All requests have the same field.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from typing import Any

import msgspec
import numpy as np
import pytest
from vllm import SamplingParams
from vllm.exceptions import VLLMValidationError
from vllm.lora.request import LoRARequest
from vllm.sampling_params import (
    RepetitionDetectionParams,
    RequestOutputKind,
    StructuredOutputsParams,
)
from vllm.v1.engine.input_processor import InputProcessor

from tests.engine.scripted import BE, LS, EngineFor, Result, ScriptedEngine, StopEverywhere
from tests.engine.test_suspension import at_suspension
from tests.engine.test_token_equality import assert_same, prompt
from tests.kv.spilling import counters
from vllm_qllm.engine.step import Step

START, END = "<", "=stop=>"
# What each field is set to. All but those of its own row leave the tokens to the model.
FIELDS: dict[str, Any] = {
    "n": 2,
    "presence_penalty": 1.5,
    "frequency_penalty": 1.0,
    "repetition_penalty": 1.3,
    "temperature": 0.0,
    "watermarking": False,
    "top_p": 0.9,
    "top_k": 20,
    "min_p": 0.05,
    "seed": 5,
    "stop": ["zzzz"],
    "stop_token_ids": [3],
    "ignore_eos": True,
    "max_tokens": 14,
    "min_tokens": 3,
    "logprobs": 3,
    "prompt_logprobs": 2,
    "logprob_token_ids": [5, 9],
    "flat_logprobs": True,
    "detokenize": False,
    "skip_special_tokens": False,
    "spaces_between_special_tokens": False,
    "include_stop_str_in_output": True,
    "output_kind": RequestOutputKind.DELTA,
    "stream_interval": 2,
    "skip_clone": True,
    "output_text_buffer_length": 4,
    "structured_outputs": StructuredOutputsParams(regex="[a-f]{40}"),
    "logit_bias": {5: 3.0, 9: 2.0},
    "allowed_token_ids": list(range(40, 60)),
    "extra_args": {"counts_steps": True},
    "bad_words": ["a", "bc"],
    "skip_reading_prefix_cache": True,
    "thinking_token_budget": 3,
    "repetition_detection": RepetitionDetectionParams(
        max_pattern_size=4, min_pattern_size=1, min_count=2
    ),
    "routed_experts_prompt_start": 0,
}
# What goes with a field for it to mean something.
WITH: dict[str, dict[str, Any]] = {
    **{field: {"temperature": 0.9, "seed": 7} for field in ("n", "top_p", "top_k", "min_p")},
    "seed": {"temperature": 1.0},
    "min_tokens": {"ignore_eos": False, "stop_token_ids": list(range(0, 250, 9))},
    "logprob_token_ids": {"logprobs": 2},
}
MORE = {"extra_args of one request": {"extra_args": {"counts_calls": True}}}
# Set by vLLM itself from the others.
DERIVED = {
    "_all_stop_token_ids",
    "_bad_words_token_ids",
    "_eos_token_id",
    "_watermarking_skipped",
}
# Not served by this engine at all: vLLM's own front end refuses them.
REFUSED: dict[str, Any] = {
    "prompt_logprob_start": 10,
    "prompt_logprob_token_ids": np.array([[1, 2]], dtype=np.int64),
    "trace_decode_token_ids": [1, 2, 3],
}
GRAMMARS: dict[str, Any] = {
    "json": '{"type": "array", "items": {"enum": [1, 2]}, "minItems": 20, "maxItems": 20}',
    "regex": "[a-f]{40}",
    "choice": ["abcdefghijklmnopqrstuvwxyz", "zyxwvutsrqponmlkjihgfedcba"],
    "grammar": 'root ::= "a" root | "b" root',
    "json_object": True,
    "structural_tag": '{"type": "structural_tag", "format": {"type": "tag", "begin": "<", '
    '"content": {"type": "regex", "pattern": "[a-f]{40}"}, "end": ">"}}',
}
GRAMMAR_OPTIONS = {"disable_any_whitespace", "disable_additional_properties", "whitespace_pattern"}

# Blocks of 32 tokens, 12 usable. The long request holds eight of them and the one beside it two;
# urgent ones need five, three, and one.
LONG, BESIDE = prompt(1, 225), prompt(4, 25)
URGENT, LESS, SHORT = prompt(2, 149), prompt(5, 65), prompt(3, 20)
OUTPUT = 14


def test_no_field_is_left_out() -> None:
    assert {f.name for f in msgspec.structs.fields(SamplingParams)} == {
        *FIELDS,
        *DERIVED,
        *REFUSED,
    }
    assert {f.name for f in dataclasses.fields(StructuredOutputsParams) if f.init} == {
        *GRAMMARS,
        *GRAMMAR_OPTIONS,
    }


def cases() -> dict[str, dict[str, Any]]:
    found = {field: {field: value, **WITH.get(field, {})} for field, value in FIELDS.items()}
    for kind, grammar in GRAMMARS.items():
        params = StructuredOutputsParams(**{kind: grammar})
        found[f"structured_outputs.{kind}"] = {"structured_outputs": params}
    return found | MORE


class Journey:
    """One request with a field, and what others do to it.

    Args:
        engine: with few blocks.
        fields: of SamplingParams.
    """

    def __init__(self, engine: ScriptedEngine, fields: dict[str, Any]) -> None:
        self._engine = engine
        self._fields = fields
        self._front_end = InputProcessor(engine.core.vllm_config)
        self._numbers = itertools.count()
        self.steps: list[Step] = []

    def add(
        self, tokens: list[int], output: int, priority: int, lora: LoRARequest | None = None
    ) -> str:
        """Add a request with the fields, as vLLM's front end would."""
        usual = {"temperature": 0.0, "ignore_eos": True, "logprobs": 1, "max_tokens": output}
        params = SamplingParams(**usual | self._fields)
        if params.thinking_token_budget is not None:
            tokenizer = self._front_end.tokenizer
            tokens = [*tokens[:-1], *tokenizer.encode(START, add_special_tokens=False)]
        request = self._front_end.process_inputs(
            f"journey-{next(self._numbers)}",
            {"type": "token", "prompt_token_ids": list(tokens)},
            params,
            supported_tasks=("generate",),
            arrival_time=time.time(),
            lora_request=lora,
            priority=priority,
        )
        request_id = self._engine.admit(request)
        structured = self._engine.core.scheduler.requests[request_id].structured_output_request
        deadline = time.monotonic() + 30
        while structured and not structured.grammar and time.monotonic() < deadline:
            time.sleep(0.01)
        return request_id

    def alone(self, tokens: list[int], output: int) -> Result:
        """The result of the same request on an idle engine."""
        self._engine.reset()
        request_id = self.add(tokens, output, LS)
        self._engine.run()
        return self._engine.results[request_id]

    def until(self, request_id: str, tokens: int) -> bool:
        """Step until the request has so many tokens; False if it ends before."""
        result = self._engine.results[request_id]
        while len(result.tokens) < tokens and result.finish_reason is None:
            self._engine.step()
        return result.finish_reason is None


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[Step]:
    """The steps that were scheduled."""
    from vllm_qllm.engine.scheduler import PriorityScheduler

    found: list[Step] = []
    describe = PriorityScheduler._describe

    def noted(*args: Any) -> Step:
        found.append(describe(*args))
        return found[-1]

    monkeypatch.setattr(PriorityScheduler, "_describe", noted)
    return found


ROWS = {
    "allowed_token_ids": "Allowed and forbidden tokens",
    "bad_words": "Allowed and forbidden tokens",
    "thinking_token_budget": "Thinking budgets",
    "extra_args": "Logits processors of the user",
    "extra_args of one request": "Logits processors of the user",
}


def marked(name: str) -> Any:
    rows = [ROWS[name]] if name in ROWS else []
    covers = [pytest.mark.covers(row, "eager", suspended=True) for row in rows]
    return pytest.param(name, marks=covers, id=name)


@pytest.mark.parametrize("name", map(marked, cases()))
def test_through_everything(
    engine_for: EngineFor, monkeypatch: pytest.MonkeyPatch, steps: list[Step], name: str
) -> None:
    engine = engine_for(
        num_gpu_blocks_override=13,
        max_model_len=384,
        reasoning_config={"reasoning_start_str": START, "reasoning_end_str": END},
        logits_processors=[f"tests.engine.processors:{c}" for c in ("CountsSteps", "CountsCalls")],
        priority_config={
            "policy": "tests.engine.scripted:StopEverywhere",
            "yield_points": "layer",
            "max_preemptions": 9,
        },
    )
    journey = Journey(engine, cases()[name])
    kinds = ((LONG, OUTPUT), (BESIDE, OUTPUT), (URGENT, 4), (LESS, 4), (SHORT, 3))
    expected = {len(tokens): journey.alone(tokens, out) for tokens, out in kinds}
    engine.reset()
    monkeypatch.setattr(StopEverywhere, "ride", 4)
    del steps[:]
    before = counters(engine)
    long, beside = (journey.add(tokens, OUTPUT, BE) for tokens in (LONG, BESIDE))
    ids = {long: LONG, beside: BESIDE}

    def arrive(tokens: list[int], output: int) -> None:
        ids[journey.add(tokens, output, LS)] = tokens

    at_suspension(engine, 2, lambda: arrive(URGENT, 4))  # its prefill is given up
    goes_on = journey.until(long, 3)
    arrive(SHORT, 3)  # it rides
    goes_on = goes_on and journey.until(long, 6)
    at_suspension(engine, 1, lambda: arrive(SHORT, 3))  # on top of a step in which it decodes
    goes_on = goes_on and journey.until(long, 8)
    if goes_on:
        arrive(URGENT, 4)  # takes its blocks
        goes_on = journey.until(long, 10)
    if goes_on:
        # A step in which it decodes is given up, and it does not ride before the next one.
        monkeypatch.setattr(StopEverywhere, "ride", 0)
        at_suspension(engine, 2, lambda: arrive(LESS, 4))
        journey.until(long, 12)
    engine.run()
    mine = [step for step in steps if long in step.request_ids]
    gone = {key: counters(engine)[key] - before[key] for key in ("abandoned", "preempted")}
    assert gone["abandoned"] >= len(LONG) and gone["preempted"] >= 1
    if len(engine.results[long].tokens) > 11:
        assert {step.lane for step in mine} == {0, 1} and gone["preempted"] >= 3
        given_up = max(n for n, step in enumerate(mine) if step.abandoned)
        again = mine[given_up + 1]
        assert mine[given_up].lane == again.lane and again.request_ids[long] == 1
    for request_id, tokens in ids.items():
        reference, result = expected[len(tokens)], engine.results[request_id]
        assert_same(result, reference, f"{request_id} of {len(tokens)} tokens")
        assert result.finish_reason == reference.finish_reason
        assert result.top_logprobs == pytest.approx(reference.top_logprobs, abs=1e-4)
        assert result.prompt_logprobs == pytest.approx(reference.prompt_logprobs, abs=1e-4)
    engine.reset()


@pytest.mark.parametrize("field", REFUSED)
def test_what_this_engine_does_not_serve(engine_for: EngineFor, field: str) -> None:
    journey = Journey(engine_for(), {field: REFUSED[field]})
    with pytest.raises(VLLMValidationError):
        journey.add(SHORT, 3, BE)
