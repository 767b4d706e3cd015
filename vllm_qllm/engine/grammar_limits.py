# SPDX-License-Identifier: Apache-2.0
"""What the grammars of less urgent classes may cost an engine."""

from __future__ import annotations

from collections.abc import Callable

from vllm.v1.request import Request
from vllm.v1.structured_output.backend_types import StructuredOutputGrammar

from vllm_qllm.config import PriorityClass, PriorityConfig
from vllm_qllm.engine.metered_grammar import MeteredGrammar

# A grammar may have a dear token now and then: so many times the allowance beyond it.
PATIENCE = 10.0


class GrammarRefusedError(Exception):
    """A grammar that its class may not use; the message says why, to its client."""


class GrammarLimits:
    """The limits of each class; the most urgent one has none, as nothing waits for less urgent.

    Args:
        config: of the server.
        level_of: class of a request.
    """

    def __init__(self, config: PriorityConfig, level_of: Callable[[Request], int]) -> None:
        self._classes = config.classes
        self._level_of = level_of

    def of(self, request: Request) -> PriorityClass | None:
        """The class whose limits bind a request."""
        level = self._level_of(request)
        return self._classes[level] if level else None

    def allowance(self, request: Request) -> float | None:
        """Seconds that the grammar of a request may cost for each token; None: any."""
        bound = self.of(request)
        return None if bound is None or bound.grammar_ms is None else bound.grammar_ms / 1000

    def metered(
        self, request: Request, grammar: StructuredOutputGrammar
    ) -> StructuredOutputGrammar:
        """The grammar, whose cost can be told if it is limited."""
        return grammar if self.allowance(request) is None else MeteredGrammar(grammar)

    def check_size(self, request: Request) -> None:
        """Before a grammar is compiled.

        Raises:
            GrammarRefusedError: it is larger than ``grammar_bytes`` of its class.
        """
        bound = self.of(request)
        structured = request.structured_output_request
        if bound is None or bound.grammar_bytes is None or structured is None:
            return
        size = len(structured.structured_output_key[1].encode(errors="replace"))
        if size > bound.grammar_bytes:
            raise GrammarRefusedError(
                f"the grammar has {size} bytes, a list of choices or a schema in the form in which "
                f"it is compiled; allowed: at most {bound.grammar_bytes} "
                f"(classes[{bound.name}].grammar_bytes)"
            )

    def check_wait(self, request: Request, seconds: float, is_compiling: bool) -> None:
        """While a grammar is not ready, for ``seconds`` now.

        Raises:
            GrammarRefusedError: that is longer than ``grammar_wait_ms`` of its class.
        """
        bound = self.of(request)
        if bound is None or bound.grammar_wait_ms is None or 1e3 * seconds <= bound.grammar_wait_ms:
            return
        doing = "was still being compiled" if is_compiling else "still waited to be compiled"
        raise GrammarRefusedError(
            f"the grammar {doing} after {seconds:.1f} s; allowed: at most "
            f"{bound.grammar_wait_ms / 1e3:g} s (classes[{bound.name}].grammar_wait_ms)"
        )

    def check_cost(self, request: Request, grammar: MeteredGrammar) -> None:
        """After a token of a request.

        Raises:
            GrammarRefusedError: its tokens go on costing more than ``grammar_ms`` of its class.
        """
        bound = self.of(request)
        if bound is None or bound.grammar_ms is None:
            return
        if 1e3 * grammar.settle(bound.grammar_ms / 1e3) > PATIENCE * bound.grammar_ms:
            raise GrammarRefusedError(
                f"the grammar took {1e3 * grammar.last:.0f} ms of the engine for the last of "
                f"{request.num_output_tokens} tokens; allowed: {bound.grammar_ms:g} ms for each "
                f"on average (classes[{bound.name}].grammar_ms)"
            )
