# SPDX-License-Identifier: Apache-2.0
"""Equal tokens under forced suspensions for every architecture; none has a line of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.families import FAMILIES, make_family
from benchmarks.models import make
from tests.engine.scripted import BE, LS, EngineFor
from tests.engine.test_token_equality import assert_same, prompt

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["tiny-llama", *FAMILIES])
def test_same_tokens(
    engine_for: EngineFor, tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    folder = tmp_path_factory.mktemp(name)
    model: Path = make(name, folder / name) if name == "tiny-llama" else make_family(name, folder)
    # vLLM's latent attention on the CPU is for bfloat16.
    dtype = "bfloat16" if "deepseek" in name else "float32"
    engine = engine_for(model=str(model), dtype=dtype)
    specs = [
        (prompt(1, 400, 160), 8, BE),
        (prompt(2, 230, 160), 8, BE),
        (prompt(3, 190, 160), 8, LS),
        (prompt(4, 40), 8, LS),
    ]
    expected = [engine.alone(tokens, out) for tokens, out, _ in specs]
    assert len({tuple(e.tokens) for e in expected}) == len(specs), "outputs depend on the prompt"
    assert all(len(set(e.tokens)) > 2 for e in expected), "and on what was generated"
    ids = [engine.add(*spec) for spec in specs[:2]]
    stops = 0

    def arrive() -> None:
        nonlocal stops
        stops += 1
        if stops in (3, 9):
            ids.append(engine.add(*specs[len(ids)]))

    engine.on_suspended = arrive
    engine.run()
    assert stops > 20 and len(ids) == 4
    for number, request_id in enumerate(ids):
        assert_same(engine.results[request_id], expected[number], f"{name}, request {number}")
    engine.reset()
