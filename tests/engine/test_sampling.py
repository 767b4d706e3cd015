# SPDX-License-Identifier: Apache-2.0
"""State of the sampler belongs to the request: it survives suspensions and changes of lane."""

from __future__ import annotations

from typing import Any

import pytest

from tests.engine.scripted import BE, LS, EngineFor, StopEverywhere
from tests.engine.test_token_equality import prompt

# Prompts are not chunked here: on CPU vLLM 0.32.0 itself fails on a chunked prompt with a seed.
KINDS: list[dict[str, Any]] = [
    {"temperature": 1.0, "seed": 5},
    {"presence_penalty": 1.5, "frequency_penalty": 1.0, "repetition_penalty": 1.3},
    {
        "temperature": 0.8,
        "seed": 7,
        "top_k": 20,
        "top_p": 0.9,
        "min_tokens": 10,
        "stop_token_ids": [3],
    },
    {"temperature": 0.9, "seed": 11, "logit_bias": {5: 3.0, 9: 2.0}, "min_p": 0.05},
]


@pytest.mark.covers("Seeded sampling", "eager", suspended=True)
@pytest.mark.covers("Penalties", "eager", suspended=True)
@pytest.mark.covers("Logit bias", "eager", suspended=True)
@pytest.mark.covers("min_tokens", "eager", suspended=True)
@pytest.mark.parametrize("mixed", [False, True], ids=["all best effort", "both classes"])
def test_sampling_is_the_same(
    engine_for: EngineFor, monkeypatch: pytest.MonkeyPatch, mixed: bool
) -> None:
    monkeypatch.setattr(StopEverywhere, "ride", 4)
    engine = engine_for(max_num_batched_tokens=1024)
    specs = [(prompt(n, 150 + 40 * n), 12, kind) for n, kind in enumerate(KINDS)]
    expected = [engine.alone(tokens, out, **kind) for tokens, out, kind in specs]
    stops = 0

    def arrive() -> None:
        nonlocal stops
        stops += 1
        if stops % 7 == 0 and stops < 90:
            engine.add(prompt(50 + stops, 17), 4, LS)

    engine.on_suspended = arrive
    priorities = [LS if mixed and n % 2 else BE for n in range(len(KINDS))]
    ids = [
        engine.add(tokens, out, priority, **kind)
        for (tokens, out, kind), priority in zip(specs, priorities, strict=True)
    ]
    engine.run()
    assert stops > 40
    for request_id, reference, (_, _, kind) in zip(ids, expected, specs, strict=True):
        assert engine.results[request_id].tokens == reference.tokens, kind
