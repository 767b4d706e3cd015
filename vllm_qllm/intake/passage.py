# SPDX-License-Identifier: Apache-2.0
"""One request between the socket and the engine."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from vllm_qllm.intake.limits import Limits
from vllm_qllm.intake.turns import Turn


@dataclass
class Passage:
    """What is known of it; shared by all tasks that serve it.

    Attributes:
        limits: of the server.
        level: index of its class; of the least urgent one while that is not known, and for what
            has no class, such as ``/tokenize``.
        turn: to be read, if it is a large one.
    """

    limits: Limits
    level: int
    turn: Turn | None = None

    def classed(self, level: int) -> None:
        """Its class has been found out; a large one of the most urgent class waits no more."""
        self.level = level
        if level == 0:
            self.was_read()

    def was_read(self) -> None:
        """What is still to be done for it is done elsewhere, or waits for a turn of its own."""
        if self.turn is not None:
            self.turn.give_back()


# Whose request is being served; None where none came by HTTP.
passage: ContextVar[Passage | None] = ContextVar("vllm_qllm.passage", default=None)


def is_less_urgent() -> bool:
    """Whether what is being served must not hold up the most urgent class."""
    served = passage.get()
    return served is not None and served.level > 0
