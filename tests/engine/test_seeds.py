# SPDX-License-Identifier: Apache-2.0
"""A seeded request is served, and its seed means the same, however its prompt is cut into steps."""

from __future__ import annotations

import pytest

from tests.engine.scripted import BE, LS, EngineFor
from tests.engine.test_token_equality import prompt

SAMPLING = {"temperature": 1.0, "seed": 5}


@pytest.mark.covers("Seeded sampling", "eager")
@pytest.mark.parametrize("policy", ["tests.engine.scripted:StopEverywhere", "step"])
def test_a_seed_means_the_same_in_chunks(engine_for: EngineFor, policy: str) -> None:
    config = {"policy": policy}
    whole = engine_for(priority_config=config, max_num_batched_tokens=1024)
    expected = whole.alone(prompt(1, 600), 10, **SAMPLING)
    chunked = engine_for(priority_config=config, max_num_batched_tokens=128)
    request_id = chunked.add(prompt(1, 600), 10, BE, **SAMPLING)
    other = chunked.add(prompt(2, 300), 10, LS, temperature=1.0, seed=6)
    chunked.run()
    assert chunked.results[request_id].tokens == expected.tokens
    assert len(chunked.results[other].tokens) == 10
    chunked.reset()
