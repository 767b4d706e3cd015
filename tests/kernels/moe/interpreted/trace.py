# SPDX-License-Identifier: Apache-2.0
"""What the interpreter does while kernels run, and what they find in the flag."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from triton import language as tl
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

assert os.environ.get("TRITON_INTERPRET") == "1", "run test_triton_interpreted.py instead"
NUMBER = 2**40 + 5  # of the step, too large for 32 bits


@dataclass
class Trace:
    """What the kernels did, and what they find in the flag.

    Attributes:
        flag: the word that they look at.
        answers: what each look at it finds, in order: whether it names the step; then nothing.
        claims: one for each tile claimed, or end of a queue found.
        stores: one for each tile stored.
    """

    flag: torch.Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.int64))
    answers: Iterator[bool] = field(default_factory=lambda: iter(()))
    looks: int = 0
    claims: int = 0
    stores: int = 0

    def after(self, tiles: int) -> Iterator[bool]:
        """Answers that name the step once that many tiles have been stored."""
        end = self.stores + tiles
        while True:
            yield self.stores >= end


@contextlib.contextmanager
def tracing() -> Iterator[Trace]:
    """Counts what the interpreter does, and writes the flag just before each look at it."""
    trace = Trace()
    load, store = InterpreterBuilder.create_masked_load, InterpreterBuilder.create_masked_store
    claim, dot = InterpreterBuilder.create_atomic_rmw, InterpreterBuilder.create_dot

    def traced_load(self: Any, *args: Any) -> Any:
        if args[-1]:  # volatile
            trace.looks += 1
            trace.flag[0] = NUMBER if next(trace.answers, False) else NUMBER - 2**32
        return load(self, *args)

    def traced_store(self: Any, *args: Any) -> Any:
        trace.stores += 1
        return store(self, *args)

    def traced_claim(self: Any, *args: Any) -> Any:
        trace.claims += 1
        return claim(self, *args)

    def widened_dot(self: Any, a: TensorHandle, b: TensorHandle, *others: Any) -> Any:
        # The interpreter holds bfloat16 as integers and would multiply those.
        if a.dtype.scalar == tl.bfloat16:
            a, b = (self.cast_impl(x, tl.float32) for x in (a, b))
        return dot(self, a, b, *others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InterpreterBuilder, "create_masked_load", traced_load)
        patch.setattr(InterpreterBuilder, "create_masked_store", traced_store)
        patch.setattr(InterpreterBuilder, "create_atomic_rmw", traced_claim)
        patch.setattr(InterpreterBuilder, "create_dot", widened_dot)
        yield trace
