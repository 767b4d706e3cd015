# SPDX-License-Identifier: Apache-2.0
"""A row of vLLM's batch that was removed and added again is the row that it was.

Whatever a row has is looked for in the batch itself, so that what a later vLLM adds is seen.
"""

from __future__ import annotations

import copy
import functools
from typing import Any

import numpy as np
import pytest
import torch
from vllm.lora.request import LoRARequest

from benchmarks.models.adapters import make_adapter
from benchmarks.models.model import make
from tests.engine.scripted import BE, LS, EngineFor, ScriptedEngine
from tests.engine.test_sampling_fields import END, START, Journey
from tests.engine.test_token_equality import prompt
from vllm_qllm.policy import Run

FIELDS: dict[str, Any] = {
    "temperature": 0.9,
    "seed": 3,
    "top_p": 0.95,
    "top_k": 40,
    "min_p": 0.01,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "repetition_penalty": 1.1,
    "min_tokens": 9,
    "logprobs": 2,
    "logprob_token_ids": [5, 9],
    "prompt_logprobs": 1,
    "logit_bias": {5: 3.0},
    "allowed_token_ids": list(range(5, 120)),
    "bad_words": ["a"],
    "thinking_token_budget": 3,
    "extra_args": {"counts_calls": True, "counts_steps": True},
}


def seen(value: Any, row: int, request_id: str, rows: int) -> Any:
    """What ``value``, an attribute of a batch or of a part of it, says of one row."""
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return value[row].tolist() if value.ndim and value.shape[0] == rows else None
    if isinstance(value, dict):
        return plain(value.get(row, value.get(request_id)))
    if isinstance(value, (set, frozenset)):
        return request_id in value
    if isinstance(value, (list, tuple)):
        if value and hasattr(value[0], "__dict__"):
            return [seen(part, row, request_id, rows) for part in value]
        return plain(value[row]) if len(value) > row else None
    if type(value).__module__.startswith(("vllm.", "tests.")) and hasattr(value, "__dict__"):
        parts = ((name, seen(part, row, request_id, rows)) for name, part in vars(value).items())
        return {name: part for name, part in parts if part is not None}
    return None


def plain(value: Any) -> Any:
    """``value`` as it is now, in a form that can be compared."""
    if isinstance(value, torch.Generator):
        return value.get_state().tolist()
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return value.tolist()
    if isinstance(value, functools.partial):
        return [plain(cell.cell_contents) for cell in value.func.__closure__ or ()]
    return copy.deepcopy(value)


def row_after(engine: ScriptedEngine, lora: LoRARequest, away_at: int | None) -> dict[str, Any]:
    """What a batch says of a request that has six tokens, its row elsewhere once in between."""
    engine.reset()
    journey = Journey(engine, FIELDS)
    request_id = journey.add(prompt(1, 60), 9, BE, lora)
    result = engine.results[request_id]
    while len(result.tokens) < 6:
        if len(result.tokens) == away_at:
            away_at = None
            engine.add(prompt(2, 20), 1, LS, lora)
            # Alone, or with the other one in its lane.
            in_step = engine.core.scheduler.in_step
            engine.core.scheduler.use_plan(Run(LS, riders=int(in_step)))
        engine.step()
    runner = engine.core.model_executor.driver_worker.worker.model_runner
    batch = runner.input_batch
    found = seen(batch, batch.req_id_to_index[request_id], request_id, batch.max_num_reqs)
    engine.run()
    assert found is not None and len(found) > 30
    del found["block_table"]  # others in every run
    for name in ("token_ids_cpu", "is_token_ids"):  # behind its tokens are those of others
        del found[f"{name}_tensor"][66:], found[name][66:]
    return {**found, "tokens": result.tokens}


@pytest.mark.parametrize("yield_points", ["layer", "none"])
def test_a_row_that_comes_back_is_the_same(
    engine_for: EngineFor, tmp_path_factory: pytest.TempPathFactory, yield_points: str
) -> None:
    folder = tmp_path_factory.mktemp("lora")
    model = make("tiny-llama", folder / "base")
    lora = LoRARequest("adapter", 1, str(make_adapter("tiny-llama", 1, folder / "1")))
    engine = engine_for(
        model=str(model),
        enable_lora=True,
        max_loras=1,
        max_lora_rank=8,
        reasoning_config={"reasoning_start_str": START, "reasoning_end_str": END},
        logits_processors=[f"tests.engine.processors:{c}" for c in ("CountsSteps", "CountsCalls")],
        priority_config={"policy": "strict", "yield_points": yield_points},
    )
    expected = row_after(engine, lora, None)
    for away_at in range(1, 5):
        found = row_after(engine, lora, away_at)
        differ = [name for name in expected if found.get(name) != expected[name]]
        assert not differ, f"away after {away_at} tokens"
