# SPDX-License-Identifier: Apache-2.0
"""One request between the socket and the engine."""

from __future__ import annotations

from collections.abc import Awaitable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

from vllm_qllm.intake.limits import Limits
from vllm_qllm.intake.stepwise import stepwise
from vllm_qllm.intake.turns import Turn

T = TypeVar("T")


@dataclass
class Passage:
    """What is known of it; shared by all tasks that serve it.

    Attributes:
        limits: of the server.
        level: index of its class; of the expected one until it is found out, and of the least
            urgent one for what has no class, such as ``/tokenize``.
        turn: to be read, if it is a large one.
    """

    limits: Limits
    level: int
    turn: Turn | None = None

    def classed(self, level: int) -> None:
        """Its class has been found out; a large one of the most urgent class waits no more."""
        self.level = level
        if self.turn is not None:
            self.turn.classed(level)
        if level == 0:
            self.was_read()

    def was_read(self) -> None:
        """What is still to be done for it is done elsewhere, or waits for a turn of its own."""
        if self.turn is not None:
            self.turn.give_back()

    async def served(self, work: Awaitable[T]) -> T:
        """Await a part of what serves it: to be used in each task that does, while it is read."""
        return await (work if self.turn is None else stepwise(work, self.turn))


# Whose request is being served; None where none came by HTTP.
passage: ContextVar[Passage | None] = ContextVar("vllm_qllm.passage", default=None)
