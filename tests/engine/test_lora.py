# SPDX-License-Identifier: Apache-2.0
"""A nested step uses adapters of its own; the suspended one gets its own back."""

from __future__ import annotations

from pathlib import Path

import pytest
from vllm.lora.request import LoRARequest

from benchmarks.models.adapters import make_adapter
from benchmarks.models.model import make
from tests.engine.scripted import BE, LS, EngineFor
from tests.engine.test_token_equality import assert_same, prompt


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make("tiny-llama", tmp_path_factory.mktemp("lora") / "base")


@pytest.fixture(scope="module")
def lora(base: Path) -> dict[int, LoRARequest]:
    return {
        n: LoRARequest(f"adapter-{n}", n, str(make_adapter("tiny-llama", n, base.parent / f"{n}")))
        for n in (1, 2)
    }


@pytest.mark.covers("LoRA adapters", "eager", suspended=True)
@pytest.mark.parametrize("slots", [1, 2])
def test_adapters_of_a_suspended_step(
    engine_for: EngineFor, base: Path, lora: dict[int, LoRARequest], slots: int
) -> None:
    engine = engine_for(model=str(base), enable_lora=True, max_loras=slots, max_lora_rank=8)
    specs = [
        (prompt(1, 400), 6, BE, lora[1]),
        (prompt(1, 400), 6, LS, lora[2]),
        # Not one without an adapter: on CPU vLLM 0.32.0 itself computes such a request wrongly
        # when it shares a step with one that has an adapter.
        (prompt(2, 90), 6, LS, lora[1]),
    ]
    expected = [engine.alone(p, out, lora=adapter) for p, out, _, adapter in specs]
    assert len({tuple(e.tokens) for e in expected}) == 3, "the adapters change the answer"
    ids = [engine.add(*specs[0][:3], lora=specs[0][3])]
    stops = 0

    def arrive() -> None:
        nonlocal stops
        stops += 1
        if stops in (2, 6):
            p, out, priority, adapter = specs[len(ids)]
            ids.append(engine.add(p, out, priority, lora=adapter))

    engine.on_suspended = arrive
    engine.run()
    assert len(ids) == 3
    for number, request_id in enumerate(ids):
        assert_same(engine.results[request_id], expected[number], f"request {number}")
    engine.reset()


@pytest.mark.parametrize("slots", [1, 2])
def test_an_urgent_request_joins_decodes_of_another_adapter(
    engine_for: EngineFor, base: Path, lora: dict[int, LoRARequest], slots: int
) -> None:
    """With one slot the decodes stay behind; with two they ride."""
    engine = engine_for(model=str(base), enable_lora=True, max_loras=slots, max_lora_rank=8)
    specs = [(prompt(1, 40), 12, BE, lora[1]), (prompt(1, 40), 6, LS, lora[2])]
    expected = [engine.alone(p, out, lora=adapter) for p, out, _, adapter in specs]
    policy = engine.core.scheduler.priority_policy
    policy.ride = 4
    try:
        ids = []
        for p, out, priority, adapter in specs:
            ids.append(engine.add(p, out, priority, lora=adapter))
            engine.step()
            engine.step()
        others, urgent = (engine.results[request_id] for request_id in ids)
        assert len(urgent.tokens) == 2, "it waited for nobody"
        assert len(others.tokens) == (2 if slots == 1 else 3)
        engine.run()
    finally:
        policy.ride = 0
    for number, request_id in enumerate(ids):
        assert_same(engine.results[request_id], expected[number], f"request {number}")
    engine.reset()
