# SPDX-License-Identifier: Apache-2.0
"""What a policy sees and what it answers.

A policy is asked before every step, and again whenever a step is suspended. Ranks count from 0,
the most urgent class. All durations are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from vllm_qllm.config import PriorityConfig


@dataclass(frozen=True, slots=True)
class ClassView:
    """The work of one class that could run now (that of suspended steps is not counted).

    Attributes:
        rank: 0 is the most urgent.
        waiting: requests not admitted yet, or preempted.
        prefilling: admitted requests with prompt tokens left.
        decoding: admitted requests that need one token at a time.
        starved: seconds since the class last led a step; 0 while it has no work.
    """

    rank: int
    waiting: int
    prefilling: int
    decoding: int
    starved: float = 0.0

    @property
    def has_work(self) -> bool:
        """Whether any request of the class could run now."""
        return bool(self.waiting or self.prefilling or self.decoding)


@dataclass(frozen=True, slots=True)
class SuspendedView:
    """The innermost suspended step.

    Attributes:
        rank: its most urgent class; only a strictly smaller rank may nest.
        starved: seconds since it last ran.
        ran: seconds it has run so far.
        checkpoint: how many checkpoints it has passed.
    """

    rank: int
    starved: float
    ran: float
    checkpoint: int


@dataclass(frozen=True, slots=True)
class EngineView:
    """Everything a decision rests on.

    Attributes:
        classes: one entry a class, most urgent first.
        suspended: the innermost suspended step, or None between steps.
        ride_limit: decodes of less urgent classes that a pure decode step of the most urgent
            class with work can take along within ``ride_slowdown``.
    """

    classes: tuple[ClassView, ...]
    suspended: SuspendedView | None = None
    ride_limit: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """Run a step led by class ``rank``.

    Attributes:
        rank: the class that is scheduled.
        riders: at most this many decodes of less urgent classes come along.
        fill: whether less urgent classes may use what is left of the token budget, prefills
            included, as stock vLLM would.
        suspendable: whether more urgent arrivals may suspend the step.
        budget: suspend it after this many seconds even without an arrival; None: do not.
    """

    rank: int
    riders: int = 0
    fill: bool = False
    suspendable: bool = True
    budget: float | None = None

    def leads(self, rank: int) -> bool:
        """Whether requests of class ``rank`` are scheduled without being riders."""
        return rank == self.rank or (self.fill and rank > self.rank)


@dataclass(frozen=True, slots=True)
class Resume:
    """Continue the suspended step, for ``budget`` seconds or until a more urgent arrival."""

    budget: float | None = None


Plan = Run | Resume


class Policy(Protocol):
    """Anything with this method is a policy; the constructor takes the configuration."""

    def __init__(self, config: PriorityConfig) -> None: ...

    def plan(self, view: EngineView) -> Plan:
        """Decide what runs next.

        Called only when some class has work or a step is suspended. ``Resume`` is valid only
        when ``view.suspended`` is not None, and ``Run`` must then name a strictly smaller rank;
        an invalid answer stops the engine with an error that names the policy.
        """
        ...
