# SPDX-License-Identifier: Apache-2.0
"""What a policy sees and what it answers.

A policy is asked before every step, and again whenever a step is suspended. Levels count from 0,
the most urgent class. All durations are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from vllm_qllm.config import PriorityConfig


@dataclass(frozen=True, slots=True)
class ClassView:
    """The work of one class that could run now (only ``owed`` counts that of suspended steps).

    Attributes:
        level: 0 is the most urgent.
        waiting: requests not admitted yet, or preempted.
        prefilling: admitted requests with prompt tokens left.
        decoding: admitted requests that need one token at a time.
        starved: seconds since the class last led a step; 0 while it has no work.
        owed: seconds of the machine that the class is to be given now, because it was held back
            for ``max_wait_ms`` and has not had its slice for that; 0: none yet.
    """

    level: int
    waiting: int
    prefilling: int
    decoding: int
    starved: float = 0.0
    owed: float = 0.0

    @property
    def has_work(self) -> bool:
        """Whether any request of the class could run now."""
        return bool(self.waiting or self.prefilling or self.decoding)


@dataclass(frozen=True, slots=True)
class SuspendedView:
    """One suspended step.

    Attributes:
        level: its most urgent class; only a strictly smaller level may nest.
        starved: seconds since it last ran.
        ran: seconds it has run so far.
        yield_point: how many yield points it has passed.
    """

    level: int
    starved: float
    ran: float
    yield_point: int


@dataclass(frozen=True, slots=True)
class EngineView:
    """Everything a decision rests on.

    Attributes:
        classes: one entry a class, most urgent first.
        suspended: the suspended steps, outermost first; only the last one can be resumed.
        ride_limit: decodes of less urgent classes that the next step of the most urgent class
            with work can take along within ``ride_slowdown``.
    """

    classes: tuple[ClassView, ...]
    suspended: tuple[SuspendedView, ...] = ()
    ride_limit: int = 0

    @property
    def limit(self) -> int:
        """Only classes of a smaller level may run now."""
        return self.suspended[-1].level if self.suspended else len(self.classes)

    @property
    def ready(self) -> tuple[ClassView, ...]:
        """Classes that have work and may run now, most urgent first."""
        return tuple(c for c in self.classes[: self.limit] if c.has_work)


@dataclass(frozen=True, slots=True)
class TurnView:
    """A request that has ended, which may be one turn of several.

    Attributes:
        level: its class.
        program: whether it names the program that it belongs to.
        prompt_tokens: of it.
        output_tokens: that it got.
        ttl: for how long the configuration keeps its KV.
    """

    level: int
    program: bool
    prompt_tokens: int
    output_tokens: int
    ttl: float


@dataclass(frozen=True, slots=True)
class Run:
    """Run a step led by class ``level``.

    Attributes:
        level: the class that is scheduled.
        riders: at most this many decodes of less urgent classes come along.
        suspendable: whether more urgent arrivals may suspend the step.
        budget: suspend it after this many seconds even without an arrival; None: do not.
        protected: arrivals do not suspend it before its budget has passed.
    """

    level: int
    riders: int = 0
    suspendable: bool = True
    budget: float | None = None
    protected: bool = False


@dataclass(frozen=True, slots=True)
class Resume:
    """Continue the innermost suspended step.

    Attributes:
        budget: for this many seconds; None: until it is done.
        protected: arrivals do not suspend it before its budget has passed.
    """

    budget: float | None = None
    protected: bool = False


Plan = Run | Resume


class Policy(Protocol):
    """Anything with this method is a policy; the constructor takes the configuration."""

    def __init__(self, config: PriorityConfig) -> None: ...

    def plan(self, view: EngineView) -> Plan:
        """Decide what runs next.

        Called only when some class has work or a step is suspended. ``Resume`` is valid only
        when a step is suspended, and ``Run`` must then name a strictly smaller level than that of
        the innermost one; an invalid answer stops the engine with an error that names the policy.
        """
        ...


@runtime_checkable
class KeepsTurns(Protocol):
    """A policy that has this method, too, says for how long a next turn is expected."""

    def keep_turn(self, turn: TurnView) -> float:
        """Seconds for which the KV of a turn that has ended is kept for the next one; 0: not.

        Only the KV of full blocks is, and it is the first to go when more urgent work needs room.
        """
        ...
