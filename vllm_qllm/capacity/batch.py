# SPDX-License-Identifier: Apache-2.0
"""What one simulated step holds."""

from __future__ import annotations

from dataclasses import dataclass, field

from vllm_qllm.capacity.request import Request


@dataclass(eq=False, slots=True)
class Batch:
    """Requests of one step, and how it may be run.

    Attributes:
        decodes: requests that compute one token.
        prefills: requests with the number of prompt tokens they compute.
        level: the most urgent class in it.
        suspendable, budget, protected: as in :class:`vllm_qllm.policy.Run`.
        riding: for each class whose decodes ride, the share of its time that is service of it.
        steady: steps in a row, at most, that are alike unless something arrives.
    """

    decodes: list[Request] = field(default_factory=list)
    prefills: list[tuple[Request, int]] = field(default_factory=list)
    level: int = 0
    suspendable: bool = False
    budget: float | None = None
    protected: bool = False
    riding: dict[int, float] = field(default_factory=dict)
    steady: int = 1

    def __bool__(self) -> bool:
        return bool(self.decodes or self.prefills)

    @property
    def tokens(self) -> int:
        """Tokens that the step computes."""
        return len(self.decodes) + sum(n for _, n in self.prefills)

    @property
    def context(self) -> int:
        """Tokens that the decodes attend to, summed."""
        return sum([r.computed for r in self.decodes]) + len(self.decodes)

    @property
    def pairs(self) -> float:
        """Query-key pairs that the attention of the prefills computes."""
        return sum(n * r.computed + n * (n + 1) / 2 for r, n in self.prefills)
