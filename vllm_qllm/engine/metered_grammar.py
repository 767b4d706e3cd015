# SPDX-License-Identifier: Apache-2.0
"""A grammar that knows what it costs the engine's thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from vllm.v1.structured_output.backend_types import StructuredOutputGrammar

P = ParamSpec("P")
R = TypeVar("R")


class MeteredGrammar(StructuredOutputGrammar):
    """Any backend's grammar, whose calls are timed.

    Attributes:
        spent: processor seconds of the calls since :meth:`settle`. Waiting for a core, which
            depends on others, is not among them.
        last: what was spent for the last token.
        excess: what the tokens so far have cost beyond the allowance, paid back by cheap ones.
        settled_at: when :meth:`settle` was last called, ``time.monotonic()`` seconds.
    """

    def __init__(self, grammar: StructuredOutputGrammar) -> None:
        self._grammar = grammar
        self.spent = self.last = self.excess = 0.0
        self.settled_at = time.monotonic()

    def settle(self, allowance: float) -> float:
        """Close the account of one token.

        Args:
            allowance: seconds that a token may cost.

        Returns:
            The excess.
        """
        self.last, self.spent = self.spent, 0.0
        self.excess = max(0.0, self.excess + self.last - allowance)
        self.settled_at = time.monotonic()
        return self.excess

    def _timed(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        began = time.thread_time()
        try:
            return call(*args, **kwargs)
        finally:
            self.spent += time.thread_time() - began

    def accept_tokens(self, request_id: str, tokens: list[int]) -> bool:
        """As the grammar's own."""
        return self._timed(self._grammar.accept_tokens, request_id, tokens)

    def validate_tokens(self, tokens: list[int]) -> list[int]:
        """As the grammar's own."""
        return self._timed(self._grammar.validate_tokens, tokens)

    def rollback(self, num_tokens: int) -> None:
        """As the grammar's own."""
        self._timed(self._grammar.rollback, num_tokens)

    def fill_bitmask(self, bitmask: torch.Tensor, batch_index: int) -> None:
        """As the grammar's own."""
        self._timed(self._grammar.fill_bitmask, bitmask, batch_index)

    def is_terminated(self) -> bool:
        """As the grammar's own."""
        return self._grammar.is_terminated()

    def reset(self) -> None:
        """As the grammar's own."""
        self._grammar.reset()
