# SPDX-License-Identifier: Apache-2.0
"""A step in flight, or a run of like decode steps, and when each of them ends."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vllm_qllm.capacity.batch import Batch
from vllm_qllm.policy import SuspendedView


@dataclass(eq=False, slots=True)
class Flight:
    """Times are simulated seconds.

    Attributes:
        batch: what is computed.
        began: when the first of its steps was scheduled.
        resumed: when it last began to run.
        seconds: what its first step takes.
        longer: by how much each later step takes longer, as its context grows.
        steps: how many like steps it stands for.
        spacing: time between two yield points.
        ran: seconds of the step that were done before ``resumed``.
        suspended: when it was last suspended.
        protected: whether arrivals leave it alone.
        stopping: whether its next event is a yield point at which it is suspended.
    """

    batch: Batch
    began: float
    resumed: float
    seconds: float
    longer: float = 0.0
    steps: int = 1
    spacing: float = math.inf
    ran: float = 0.0
    suspended: float = 0.0
    protected: bool = False
    stopping: bool = False

    def lasting(self, steps: int) -> float:
        """Seconds that the first ``steps`` take."""
        return steps * self.seconds + self.longer * steps * (steps - 1) / 2

    @property
    def end(self) -> float:
        """When the last step ends if nothing stops it."""
        return self.resumed + self.lasting(self.steps) - self.ran

    def done(self, now: float) -> int:
        """How many of the steps have ended by ``now``, all but the last one at most."""
        elapsed = now - self.resumed
        if self.longer:
            half = self.seconds / self.longer - 0.5
            guess = int(math.sqrt(half * half + 2 * elapsed / self.longer) - half)
        else:
            guess = int(elapsed / self.seconds)
        steps = min(max(guess, 0), self.steps - 1)
        while steps > 0 and self.lasting(steps) > elapsed:  # rounding
            steps -= 1
        return steps

    def stop_after(self, moment: float) -> float | None:
        """The first yield point after ``moment``, or None when the step has ended before one."""
        elapsed = self.ran + moment - self.resumed
        yield_point = (math.floor(elapsed / self.spacing + 1e-9) + 1) * self.spacing
        if yield_point >= self.seconds * (1 - 1e-9):
            return None
        return self.resumed + yield_point - self.ran

    def view(self, level: int, now: float) -> SuspendedView:
        """What the policy sees of it while it is suspended."""
        passed = int(self.ran / self.spacing + 1e-9)
        return SuspendedView(level, now - self.suspended, self.ran, passed)
