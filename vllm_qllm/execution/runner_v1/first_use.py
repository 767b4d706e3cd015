# SPDX-License-Identifier: Apache-2.0
"""Compile at the start what the sampler would otherwise compile within somebody's step.

vLLM compiles a function of its sampler when it is first called: for the first request with
log-probabilities. That takes a CPU seconds, and the step cannot be suspended meanwhile. On a GPU
vLLM calls it before it serves.
"""

from __future__ import annotations

from typing import Any

import torch


@torch.inference_mode()
def compile_ahead(runner: Any) -> None:
    """Call it as a step does, with as many columns.

    Args:
        runner: a model runner on a CPU.
    """
    logits = torch.zeros(2, runner.model_config.get_vocab_size())
    runner.sampler.gather_logprobs(logits, 1, torch.zeros(2, dtype=torch.int64))
