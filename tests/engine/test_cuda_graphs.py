# SPDX-License-Identifier: Apache-2.0
"""Steps that may replay a CUDA graph are not suspended, and stay in the lane of the graphs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from vllm.config.compilation import CUDAGraphMode

from tests.engine.bare_scheduler import BE, Make, add, begin, play
from vllm_qllm.engine.cuda_graphs import captured_tokens


@pytest.mark.parametrize(
    ("mode", "largest", "expected"),
    [
        (None, 512, 0),
        (CUDAGraphMode.NONE, 512, 0),
        (CUDAGraphMode.PIECEWISE, 512, 512),
        (CUDAGraphMode.FULL_DECODE_ONLY, 64, 64),
        (CUDAGraphMode.FULL_AND_PIECEWISE, 512, 512),
        (CUDAGraphMode.FULL, None, 0),
    ],
)
def test_the_most_tokens_of_a_replayed_step(
    mode: CUDAGraphMode | None, largest: int | None, expected: int
) -> None:
    compilation = SimpleNamespace(cudagraph_mode=mode, max_cudagraph_capture_size=largest)
    assert captured_tokens(SimpleNamespace(compilation_config=compilation)) == expected


@pytest.mark.parametrize(("tokens", "suspendable"), [(16, False), (17, True)])
def test_only_steps_beyond_that_are_suspendable(make: Make, tokens: int, suspendable: bool) -> None:
    bare = make()
    bare.scheduler._captured_tokens = 16
    play(bare, [add("b1", BE, tokens, out=1), begin(b1=tokens)])
    (of,) = bare.scheduler.flight
    assert (of.suspendable, of.lane) == (suspendable, int(suspendable))
