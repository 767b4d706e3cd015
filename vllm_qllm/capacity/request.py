# SPDX-License-Identifier: Apache-2.0
"""One request as the simulator follows it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(eq=False, slots=True)
class Request:
    """A request of class ``level``; lengths in tokens, times in simulated seconds.

    Attributes:
        number: counts up over a simulation.
        level: its class; 0 is the most urgent.
        sent: when the client sent it.
        prompt: its prompt tokens.
        output: tokens it generates.
        client: the closed-loop client that sent it, or -1.
        arrived: when the engine saw it.
        computed: tokens whose KV is written.
        emitted: tokens generated so far.
        admitted: counts admissions; running requests are in this order.
        blocks: KV blocks it holds.
        preemptions: how often it lost them.
        started: when its first work began, or a negative number.
        first: when its first token came, or a negative number.
    """

    number: int
    level: int
    sent: float
    prompt: int
    output: int
    client: int = -1
    arrived: float = 0.0
    computed: int = 0
    emitted: int = 0
    admitted: int = 0
    blocks: int = 0
    preemptions: int = 0
    started: float = -1.0
    first: float = -1.0

    @property
    def missing(self) -> int:
        """Tokens to compute before the next one comes out; 1 for a decode."""
        return self.prompt + self.emitted - self.computed
