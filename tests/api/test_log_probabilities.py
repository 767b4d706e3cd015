# SPDX-License-Identifier: Apache-2.0
"""Log-probabilities come in pieces: as vLLM gives them, and not before what is more urgent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer
from vllm import SamplingParams
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine import EngineCoreOutput, EngineCoreRequest, FinishReason
from vllm.v1.engine.output_processor import OutputProcessor, RequestOutputCollector
from vllm.v1.outputs import LogprobsLists, LogprobsTensors

from vllm_qllm.api import log_probabilities
from vllm_qllm.config import PriorityConfig

LS, BE = 0, 1
ROWS, TOP = 400, 20


class Client:
    """The parts of an ``AsyncLLM`` that meet outputs: here without an engine."""

    def __init__(self, model: Path, pieces: bool) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.output_processor = OutputProcessor(self.tokenizer, log_stats=False)
        self.logger_manager = None
        self.aborted: list[str] = []
        self.engine_core = SimpleNamespace(abort_requests_async=self._abort)
        self.queues: dict[str, RequestOutputCollector] = {}
        if pieces:
            log_probabilities.in_pieces(self, PriorityConfig())
            log_probabilities.in_pieces(self, PriorityConfig())  # each handler asks for it

    async def _abort(self, ids: list[str]) -> None:
        self.aborted += ids

    def add(self, name: str, priority: int, rows: int = ROWS, **sampling: Any) -> None:
        """A request, whose prompt has a token more than rows of log-probabilities."""
        kind = {"output_kind": RequestOutputKind.FINAL_ONLY, "logprobs": TOP}
        request = EngineCoreRequest(
            request_id=name,
            external_req_id=name,
            prompt_token_ids=[7] * (rows + 1),
            mm_features=None,
            sampling_params=SamplingParams(prompt_logprobs=TOP, **(kind | sampling)),
            pooling_params=None,
            arrival_time=0.0,
            lora_request=None,
            cache_salt=None,
            data_parallel_rank=None,
            priority=priority,
        )
        self.queues[name] = RequestOutputCollector(RequestOutputKind.FINAL_ONLY, name)
        self.output_processor.add_request(request, None, None, 0, self.queues[name])

    async def answer(self, name: str) -> Any:
        """The whole of it."""
        return await asyncio.wait_for(self.queues[name].get(), 30)

    def is_answered(self, name: str) -> bool:
        return self.queues[name].output is not None


def entries(rows: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    # Half of the ids are of bytes that only together with others are a character.
    ids = torch.randint(0, 256, (rows, TOP + 1), generator=random, dtype=torch.int32)
    return ids, torch.rand(rows, TOP + 1, generator=random), torch.ones(rows, dtype=torch.int32)


def output(name: str, token: int, rows: int = 0, last: bool = False) -> EngineCoreOutput:
    """One of the engine: a token, and with the first those of the prompt."""
    found = EngineCoreOutput(name, [token])
    if rows:
        found.new_prompt_logprobs_tensors = LogprobsTensors(*entries(rows, seed=token))
    found.new_logprobs = LogprobsLists(*(t.numpy() for t in entries(1, seed=token + 1)))
    found.finish_reason = FinishReason.LENGTH if last else None
    return found


def run(scene: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scene(), 60))  # type: ignore[arg-type]


@pytest.mark.parametrize("priority", [LS, BE])
@pytest.mark.parametrize("flat", [False, True])
def test_they_are_what_vllm_gives(tiny_model: Path, priority: int, flat: bool) -> None:
    async def scene() -> None:
        answers = []
        for pieces in (False, True):
            client = Client(tiny_model, pieces)
            for name, rows in (("a", ROWS), ("b", 3)):
                client.add(name, priority, rows, flat_logprobs=flat)
            for outputs in (
                [output("a", 65, ROWS), output("b", 66, 3)],
                [output("a", 67), output("b", 68)],
                [output("a", 69, last=True), output("b", 70, last=True)],
            ):
                client.output_processor.process_outputs(outputs)
            answers.append([await client.answer(name) for name in ("a", "b")])
            assert not client.output_processor.request_states
        for (was, now), rows in zip(zip(*answers, strict=True), (ROWS, 3), strict=True):
            assert len(was.prompt_logprobs) == rows + 1
            assert now.prompt_logprobs == was.prompt_logprobs
            assert now.outputs[0].logprobs == was.outputs[0].logprobs
            assert now.outputs[0].token_ids == was.outputs[0].token_ids
            assert now.outputs[0].text == was.outputs[0].text

    run(scene)


def test_an_urgent_answer_does_not_wait_for_a_large_one(tiny_model: Path) -> None:
    async def scene() -> None:
        client = Client(tiny_model, pieces=True)
        client.add("large", BE)
        client.add("small", LS, 3)
        process = client.output_processor.process_outputs
        process([output("large", 65, ROWS, last=True)])
        assert not client.is_answered("large")
        process([output("small", 66, 3, last=True)])
        assert client.is_answered("small") and not client.is_answered("large")
        # The loop turns all the while.
        turns = 0
        while not client.is_answered("large"):
            await asyncio.sleep(0)
            turns += 1
        assert turns >= ROWS * PIECES_A_ROW

    run(scene)


# A piece holds a row, and ends when its time is over.
PIECES_A_ROW = 0.05


def test_less_urgent_tokens_with_many_wait_for_each_other(tiny_model: Path) -> None:
    async def scene() -> None:
        client = Client(tiny_model, pieces=True)
        for name in ("x", "y", "urgent"):
            client.add(name, LS if name == "urgent" else BE, 3)
        process = client.output_processor.process_outputs
        for token in range(65, 90):
            process([output(name, token, last=token == 89) for name in ("x", "y")])
        process([output("urgent", 66, 3, last=True)])
        assert client.is_answered("urgent") and not client.is_answered("x")
        for name in ("x", "y"):
            assert (await client.answer(name)).outputs[0].token_ids == [*range(65, 90)]

    run(scene)


def test_a_client_that_goes_away_leaves_nothing(tiny_model: Path) -> None:
    async def scene() -> None:
        client = Client(tiny_model, pieces=True)
        client.add("gone", BE)
        client.add("there", BE)
        process = client.output_processor.process_outputs
        process([output("gone", 65, ROWS, last=True), output("there", 66, ROWS, last=True)])
        client.output_processor.abort_requests(["gone"], internal=True)
        assert (await client.answer("there")).finished
        keeper = client.priority_log_probabilities  # type: ignore[attr-defined]
        if keeper._task is not None:
            await keeper._task
        assert not keeper._queue

    run(scene)


def test_a_stop_string_aborts_in_the_engine(tiny_model: Path) -> None:
    async def scene() -> None:
        client = Client(tiny_model, pieces=True)
        text = client.tokenizer.decode([70])
        client.add("a", BE, 3, stop=[text])
        client.output_processor.process_outputs([output("a", 65, 3), output("a", 70)])
        assert (await client.answer("a")).outputs[0].finish_reason == "stop"
        await asyncio.sleep(0.05)
        assert client.aborted == ["a"]

    run(scene)
