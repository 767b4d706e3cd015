# SPDX-License-Identifier: Apache-2.0
"""Who has the machine, and what that leaves each class to be owed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vllm_qllm.config import PriorityClass
from vllm_qllm.policy.share import Share

NOBODY: Mapping[int, float] = {}


def riding(rows: int, decodes: int, step_tokens: int | None = None) -> float:
    """The share of a step's time that is service of a class whose decodes ride in it.

    In a step of decodes each of them comes as far as in a step of its own. Beside prompts, which
    take far longer, they have their part of the tokens.

    Args:
        rows: decodes of the class that ride.
        decodes: all that it has.
        step_tokens: of the whole step if it holds prompt tokens, else None.
    """
    share = rows / max(rows, decodes)
    return share if step_tokens is None else share * rows / max(rows, step_tokens)


class Service:
    """Follows which class has the machine, for the views of a policy.

    The engine and the capacity model tell it the same: which work there is, when a step starts or
    goes on, and when it ends or is suspended. Times are seconds of one clock that never goes back.

    Args:
        classes: most urgent first.
    """

    def __init__(self, classes: Sequence[PriorityClass]) -> None:
        self._shares = [Share(c.max_wait_ms / 1000, c.slice_ms / 1000) for c in classes]
        # When each class last had the machine, or got work after having none.
        self._since: list[float | None] = [None for _ in classes]
        self._now = 0.0
        self._leader: int | None = None
        self._riding = NOBODY
        self._charged = False

    # -- what happens --------------------------------------------------------------------------

    def note(self, work: Sequence[tuple[bool, bool]], now: float) -> None:
        """Note which work there is: for each class, whether prompts, and whether decodes.

        Work of suspended steps counts; what is blocked whatever the plan (by a grammar that is
        still compiled) does not, and so does not age.
        """
        self._pass(now)
        for level, kinds in enumerate(work):
            share = self._shares[level]
            share.note(*kinds)
            if not share.present:
                self._since[level] = None
            elif self._since[level] is None:
                self._since[level] = now

    def started(
        self,
        level: int,
        now: float,
        riding: Mapping[int, float] = NOBODY,
        charged: bool = False,
    ) -> None:
        """A step starts or goes on.

        Args:
            level: the class that leads it.
            now: the time.
            riding: for each class that rides, the share of the time that is service of it.
            charged: whether it runs before more urgent work; what it then runs over is a debt.
        """
        self._pass(now)
        self._leader, self._riding, self._charged = level, riding, charged
        self._since[level] = now

    def ended(self, now: float) -> None:
        """The step is over, or suspended.

        The time until the next one starts is its own as well, but nobody's debt.
        """
        self._pass(now)
        self._charged = False

    def stopped(self, now: float) -> None:
        """Nothing runs, although there may be work."""
        self._pass(now)
        self._leader, self._riding = None, NOBODY

    def refused(self, level: int, now: float) -> None:
        """Class ``level`` was given the machine and could not use it (it lacks KV blocks)."""
        self._pass(now)
        self._shares[level].limit()

    def _pass(self, now: float) -> None:
        seconds, self._now = max(0.0, now - self._now), now
        for level, share in enumerate(self._shares):
            self._let_pass(level, share, seconds)
        if self._leader is not None and self._since[self._leader] is not None:
            self._since[self._leader] = now

    def _let_pass(self, level: int, share: Share, seconds: float) -> None:
        if level == self._leader:
            share.serve(seconds, self._charged)
        else:
            share.hold(seconds, self._riding.get(level, 0.0))

    # -- what that leaves ----------------------------------------------------------------------

    def starved(self, level: int, later: float = 0.0) -> float:
        """Seconds since class ``level`` last had the machine; 0 while it has no work.

        Args:
            level: of the class.
            later: as it will be after so many more seconds of the step that runs.
        """
        since = self._since[level]
        return 0.0 if since is None or level == self._leader else self._now - since + later

    def owed(self, level: int, later: float = 0.0) -> float:
        """Seconds of the machine that class ``level`` is to be given now; see :meth:`starved`."""
        share = self._shares[level]
        if later:
            share = share.copy()
            self._let_pass(level, share, later)
        return share.owed
