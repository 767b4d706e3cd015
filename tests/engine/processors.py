# SPDX-License-Identifier: Apache-2.0
"""Logits processors as users write them: one for all rows of a batch, one for single requests.

Both force one token after the other for requests that ask for it with ``extra_args``, and both
remember how far they have come.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import (
    AdapterLogitsProcessor,
    BatchUpdate,
    LogitsProcessor,
)
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

FIRST = 10


class CountsSteps(LogitsProcessor):
    """Forces FIRST plus the number of steps since the tokens that a row came with."""

    def __init__(self, *_: Any) -> None:
        self.counts: dict[int, int] = {}

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        for row in self.counts:
            self.counts[row] += 1

        def new(params: SamplingParams, _: Any, output: list[int]) -> int | None:
            return len(output) if (params.extra_args or {}).get("counts_steps") else None

        process_dict_updates(self.counts, batch_update, new)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        for row, count in self.counts.items():
            logits[row] = _forced(logits[row], count)
        return logits


class CountsCalls(AdapterLogitsProcessor):
    """Forces FIRST plus the number of tokens that the request was asked about before."""

    def is_argmax_invariant(self) -> bool:
        return False

    def new_req_logits_processor(self, params: SamplingParams) -> Callable[..., Any] | None:
        if not (params.extra_args or {}).get("counts_calls"):
            return None
        calls = 0

        def force(output: list[int], logits: torch.Tensor) -> torch.Tensor:
            nonlocal calls
            calls += 1
            return _forced(logits, calls - 1)

        return force


def _forced(logits: torch.Tensor, count: int) -> torch.Tensor:
    forced = torch.full_like(logits, float("-inf"))
    forced[FIRST + count] = 1.0
    return forced
