# SPDX-License-Identifier: Apache-2.0
"""What engine and workers say to each other about one step.

    start(scheduler_output, command)  ->  Suspended | output
    resume(deadline)                ->  Suspended | output
    resume(GIVE_UP)                 ->  an output without a token

Deadlines are ``time.monotonic_ns()`` values: that clock is one for all processes of a machine.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import NamedTuple

NEVER, GIVE_UP = 2**63 - 1, -1
BEFORE_ATTENTION, AFTER_ATTENTION, EXPERTS = "before attention", "after attention", "experts"
WHERE = (BEFORE_ATTENTION, AFTER_ATTENTION, EXPERTS)


class RunCommand(NamedTuple):
    """How a worker is to run a step.

    Attributes:
        number: the number that the arrival flag names it by.
        lane: which set of per-step buffers to use.
        suspendable: whether to look at the flag and the deadline at all.
        deadline: nanoseconds; suspend at the first yield point after it.
    """

    number: int
    lane: int
    suspendable: bool
    deadline: int


class Place(NamedTuple):
    """Where in the model a yield point is.

    Attributes:
        layer: number of the layer, as its name says; -1 when its name says none.
        where: one of :data:`WHERE`.
    """

    layer: int
    where: str


@dataclass(frozen=True, slots=True)
class Suspended:
    """A worker's answer in place of a result: the step stopped.

    Attributes:
        number: of the step.
        yield_point: how many yield points the step has met, this one included.
        place: where in the model that is.
    """

    number: int
    yield_point: int
    place: Place


class StepAbandoned(Exception):
    """Unwinds the forward pass of a suspended step that is given up."""


def deadline(budget: float | None) -> int:
    """Deadline of a step that starts or resumes now, ``budget`` in seconds or None for never."""
    return NEVER if budget is None else time.monotonic_ns() + int(budget * 1e9)
