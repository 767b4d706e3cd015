# SPDX-License-Identifier: Apache-2.0
"""Invariant 1 on a GPU: to the bit, in eager mode and beside CUDA graphs.

Every step here is that of one request, so that all its kernels have the same shapes whether it is
suspended or not.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from vllm.v1.attention.backends.registry import AttentionBackendEnum

from benchmarks.models.model import make
from tests.engine.scripted import BE, LS, EngineFor, ScriptedEngine, stop_everywhere
from tests.engine.test_token_equality import prompt
from vllm_qllm.kernels.moe.triton_work import Work

# Others may use the GPU, too.
COMMON: dict[str, Any] = {"dtype": "bfloat16", "gpu_memory_utilization": 0.2}
# Graphs of few tokens: decode steps are replayed, prompts of more tokens are not.
GRAPHS: dict[str, Any] = {"compilation_config": {"cudagraph_capture_sizes": [1, 2, 4, 8]}}
MODES: dict[str, dict[str, Any]] = {
    "eager": {"enforce_eager": True},
    "graphs": {"enforce_eager": False, **GRAPHS},
    "triton attention": {
        "enforce_eager": True,
        "attention_backend": AttentionBackendEnum.TRITON_ATTN,
    },
}
# Sizes of a model with long layers, and a pool that holds a prompt and what comes on top of it.
LONG: dict[str, Any] = {
    "max_model_len": 8192,
    "max_num_batched_tokens": 8192,
    "num_gpu_blocks_override": 600,
}


def one_after_another(
    engine: ScriptedEngine, specs: list[tuple[list[int], int, int]], draw: random.Random
) -> int:
    """Run a BE request, with LS requests that come while it is suspended; returns suspensions.

    An LS request comes when the one before is done, so that no two share a step.
    """
    come = random.Random(draw.random())  # asked as often as steps happen to stop
    expected = [engine.alone(tokens, out) for tokens, out, _ in specs]
    assert len({tuple(e.tokens) for e in expected}) == len(specs), "all tokens alike"
    ids = [engine.add(*specs[0])]
    stops = 0

    def arrive() -> None:
        nonlocal stops
        stops += 1
        done = all(engine.results[i].finish_reason for i in ids[1:])
        if come.random() < 0.5 and len(ids) < len(specs) and done:
            ids.append(engine.add(*specs[len(ids)]))

    engine.on_suspended = arrive
    engine.run()
    assert len(ids) > 1, "nobody came while the step was suspended"
    for request_id, reference in zip(ids, expected, strict=False):
        assert engine.results[request_id].tokens == reference.tokens
        assert engine.results[request_id].logprobs == reference.logprobs, "to the bit"
    engine.reset()
    return stops


def random_specs(
    draw: random.Random, longest: int, urgent: int
) -> list[tuple[list[int], int, int]]:
    """A BE request of at most ``longest`` tokens, and LS requests of half of that."""
    lengths = [draw.randrange(longest * 3 // 4, longest)]
    lengths += [draw.randrange(20, longest // 2) for _ in range(draw.randrange(1, urgent + 1))]
    return [
        (prompt(draw.randrange(99), length), 8, BE if number == 0 else LS)
        for number, length in enumerate(lengths)
    ]


@pytest.mark.parametrize("yield_points", ["layer", "expert"])
@pytest.mark.parametrize("mode", MODES)
def test_same_bits_however_often_it_stops(
    engine_for: EngineFor, mode: str, yield_points: str
) -> None:
    config = stop_everywhere(yield_points)
    engine = engine_for(priority_config=config, **COMMON, **MODES[mode])
    draw = random.Random(7)
    for _ in range(6):
        assert one_after_another(engine, random_specs(draw, 500, 4), draw) >= 4


@pytest.fixture(scope="session")
def wide_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Mixtral with few and long layers."""
    return make("wide-mixtral", tmp_path_factory.mktemp("models") / "wide-mixtral")


@pytest.fixture
def kernel_stops(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many launches of the experts' kernel were stopped so far."""
    count, was_stopped = 0, Work.was_stopped

    def counted(work: Work) -> bool:
        nonlocal count
        stopped = was_stopped(work)
        count += stopped
        return stopped

    monkeypatch.setattr(Work, "was_stopped", counted)
    return lambda: count


@pytest.mark.parametrize("mode", ["eager", "graphs"])
def test_same_bits_when_kernels_stop(
    engine_for: EngineFor, mode: str, wide_model: Path, kernel_stops: Callable[[], int]
) -> None:
    config = stop_everywhere("expert")
    engine = engine_for(
        model=str(wide_model), priority_config=config, **COMMON, **LONG, **MODES[mode]
    )
    draw = random.Random(7)
    for _ in range(4):
        before = kernel_stops()
        assert one_after_another(engine, random_specs(draw, 8000, 2), draw) >= 2
        assert kernel_stops() > before


def test_other_kv_would_be_noticed(engine_for: EngineFor) -> None:
    """The checks above can fail: other KV changes what follows."""
    engine = engine_for(priority_config=stop_everywhere("layer"), **COMMON, **MODES["eager"])
    tokens = prompt(3, 200)
    expected = engine.alone(tokens, 8)

    def corrupt() -> None:
        (caches,) = engine.core.collective_rpc(lambda worker: worker.model_runner.kv_caches)
        for cache in caches[:2]:
            cache.zero_()

    request_id = engine.add(tokens, 8, BE)
    engine.on_suspended = corrupt
    engine.run()
    assert engine.results[request_id].logprobs != expected.logprobs
    engine.reset()
