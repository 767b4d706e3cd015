# SPDX-License-Identifier: Apache-2.0
"""Requests with grammars, and grammars that cost what a test says."""

from __future__ import annotations

import itertools
import time

import torch
from vllm import SamplingParams
from vllm.sampling_params import StructuredOutputsParams
from vllm.v1.request import Request
from vllm.v1.structured_output.backend_types import StructuredOutputGrammar

_numbers = itertools.count()


def constraint(backend: str = "xgrammar", **constraint: object) -> StructuredOutputsParams:
    """As the front end passes it on: it has chosen the backend."""
    params = StructuredOutputsParams(**constraint)  # type: ignore[arg-type]
    params._backend = backend
    return params


def request(priority: int, regex: str = "[ab]{4}") -> Request:
    """One that wants a grammar."""
    return Request(
        request_id=f"grammar-{next(_numbers)}",
        prompt_token_ids=[5, 6, 7],
        sampling_params=SamplingParams(structured_outputs=constraint(regex=regex)),
        pooling_params=None,
        priority=priority,
    )


class Anything(StructuredOutputGrammar):
    """Accepts everything, and takes ``seconds`` of a processor to do so."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def accept_tokens(self, request_id: str, tokens: list[int]) -> bool:
        ends = time.thread_time() + self.seconds
        while time.thread_time() < ends:
            pass
        return True

    def validate_tokens(self, tokens: list[int]) -> list[int]:
        return tokens

    def rollback(self, num_tokens: int) -> None:
        pass

    def fill_bitmask(self, bitmask: torch.Tensor, batch_index: int) -> None:
        bitmask[batch_index].fill_(-1)

    def is_terminated(self) -> bool:
        return False

    def reset(self) -> None:
        pass
