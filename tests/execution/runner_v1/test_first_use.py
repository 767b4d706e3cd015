# SPDX-License-Identifier: Apache-2.0
"""No step compiles anything: a request that is the first of its kind must not stop all others."""

from __future__ import annotations

import torch
from torch._dynamo.utils import counters

from tests.engine.scripted import BE, LS, EngineFor
from tests.engine.test_token_equality import prompt


def compiled() -> int:
    """Graphs that this process has compiled."""
    return int(counters["stats"]["unique_graphs"])


def test_log_probabilities_compile_nothing(engine_for: EngineFor) -> None:
    torch._dynamo.reset()
    engine = engine_for(max_num_seqs=3)  # a new one
    before = compiled()
    for seed, priority, more in ((1, BE, {"prompt_logprobs": 5}), (2, LS, {}), (3, BE, {})):
        engine.add(prompt(seed, 40), 3, priority, **({"logprobs": 20} | more))
    engine.run()
    engine.add(prompt(4, 40), 3, BE, logprobs=1)  # alone, the sizes of a batch being many
    engine.run()
    assert compiled() == before
    engine.reset()
