# SPDX-License-Identifier: Apache-2.0
"""Equal tokens under forced suspensions for every architecture; none has a line of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.models.families import FAMILIES, make_family
from benchmarks.models.model import make
from tests.engine.scripted import BE, LS, EngineFor, stop_everywhere
from tests.engine.test_token_equality import assert_same, prompt

pytestmark = pytest.mark.slow

FEATURES = {
    "tiny-mixtral": "Mixtral",
    "tiny-qwen3-moe": "Qwen3-MoE",
    "tiny-qwen2-moe": "Qwen2-MoE (shared expert)",
    "tiny-olmoe": "OLMoE",
    "tiny-gpt-oss": "GPT-OSS",
    "tiny-deepseek-v2": "DeepSeek-V2 (MLA, dense first layer)",
    "tiny-llama": "Llama (dense)",
}
MODES: dict[str, dict[str, Any]] = {
    "eager": {},
    "compiled": {"enforce_eager": False},
    "tp2": {"distributed_executor_backend": "mp", "tensor_parallel_size": 2},
}
# Those that differ most are tried in every mode by `make test`, the others by `make test-all`.
EVERYWHERE = ("tiny-mixtral", "tiny-deepseek-v2")


def case(name: str, mode: str) -> Any:
    """A test of this model in this mode."""
    marks = [pytest.mark.covers(FEATURES[name], mode, suspended=True)]
    if mode != "eager" and name not in EVERYWHERE:
        marks.append(pytest.mark.thorough)
    return pytest.param(name, mode, id=f"{name}-{mode}", marks=marks)


CASES = [case(name, mode) for name in FEATURES for mode in MODES]


def _small_tiles(worker: object) -> None:
    """Several tiles a step, although the steps of a test are small."""
    from vllm_qllm.kernels.moe import row_tiles

    row_tiles.ROWS = 64


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the models of this module are made, each once."""
    return tmp_path_factory.mktemp("families")


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_same_tokens(
    engine_for: EngineFor,
    models: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    mode: str,
) -> None:
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "0|1" if mode == "tp2" else "auto")
    model = models / name
    if not model.exists():
        make_family(name, model) if name in FAMILIES else make(name, model)
    best_effort = [(prompt(1, 400, 160), 8, BE), (prompt(2, 230, 160), 8, BE)]
    urgent = [(prompt(3, 190, 160), 8, LS), (prompt(4, 40), 8, LS)]
    dtype = "float32"
    if "deepseek" in name:
        # vLLM's latent attention on the CPU takes bfloat16 only, where the size of a batch can
        # change a token: here every step is that of one request alone, without cached prefixes.
        dtype = "bfloat16"
        best_effort, urgent[0] = [(prompt(1, 400), 8, BE)], (prompt(3, 190), 8, LS)
    specs = best_effort + urgent
    engine = engine_for(
        model=str(model), dtype=dtype, priority_config=stop_everywhere("expert"), **MODES[mode]
    )
    engine.core.collective_rpc(_small_tiles)
    expected = [engine.alone(tokens, out) for tokens, out, _ in specs]
    assert len({tuple(e.tokens) for e in expected}) == len(specs), "outputs depend on the prompt"
    assert all(len(set(e.tokens)) > 2 for e in expected), "and on what was generated"
    ids = [engine.add(*spec) for spec in best_effort]
    stops = 0

    def arrive() -> None:
        nonlocal stops
        stops += 1
        if dtype == "float32":
            due = stops in (3, 9)
        else:  # one after another
            urgent_ids = ids[len(best_effort) :]
            due = stops >= 3 and all(engine.results[i].finish_reason for i in urgent_ids)
        if due and len(ids) < len(specs):
            ids.append(engine.add(*specs[len(ids)]))

    engine.on_suspended = arrive
    engine.run()
    # Two chunks of the prompts alone: before and after the attention of four layers, and before
    # each tile of the experts, of which a dense first layer has none.
    assert stops > 2 * 4 * (2 if "llama" in name else 4) and len(ids) == len(specs)
    for number, request_id in enumerate(ids):
        assert_same(engine.results[request_id], expected[number], f"{name}, request {number}")
    engine.reset()
