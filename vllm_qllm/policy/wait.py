# SPDX-License-Identifier: Apache-2.0
"""How long one kind of work of a class has been held back, and what it has earned by that."""

from __future__ import annotations

# A rest of a slice below this fraction of it is not worth a step.
NOTHING = 1e-3


class Wait:
    """A clock and an account of the prompts, or of the decodes, of one class.

    While the work is held back it earns ``slice / max_wait`` seconds of the machine a second. They
    are due once it has been held back for ``max_wait``, and stay due, over as many steps as that
    takes, until they are spent. Then the clock begins anew. A time without such work spends them,
    too: after a short pause a slice goes on, after a long one everything begins anew. All times
    are seconds.

    Args:
        max_wait: for how long the work may be held back.
        slice_: what it has earned by then.
        most: what it can earn at most.

    Attributes:
        present: whether there is such work.
        credit: seconds of the machine that it has earned and not had.
        due: whether they are to be given now.
    """

    __slots__ = ("_held", "_max_wait", "_most", "_slice", "credit", "due", "present")

    def __init__(self, max_wait: float, slice_: float, most: float) -> None:
        self._max_wait = max_wait
        self._slice = slice_
        self._most = most
        self.present = False
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._held = 0.0  # seconds since it was owed nothing
        self.credit = 0.0
        self.due = False

    def take_over(self, other: Wait) -> None:
        """Go on with the time of ``other``, whose work has become work of this kind."""
        if other.credit > self.credit:
            self.credit, self._held, self.due = other.credit, other._held, other.due

    def hold(self, seconds: float, earning: float, riding: float = 0.0) -> None:
        """``seconds`` have passed without a step of its class.

        Args:
            seconds: that have passed.
            earning: how many of them count; in the others its class has paid a debt.
            riding: the share of each second that is service nevertheless.
        """
        if not self.present:
            self.serve(seconds)
            return
        gain = (1.0 - riding) * self._slice / self._max_wait - riding
        self.credit = min(max(0.0, self.credit + earning * gain), self._most)
        if gain <= 0.0 and not self.credit:
            self._begin_anew()  # it rides often enough to have its share
            return
        self._held += seconds
        # Nobody waits longer because a slice before took a little longer than it should, but a
        # slice of next to nothing would take a whole step.
        earned = self.credit >= self._slice / 2 * (1.0 - NOTHING)
        if earned and self._held >= self._max_wait * (1.0 - 1e-9):
            self.due = True

    def serve(self, seconds: float) -> None:
        """Its class has had the machine for ``seconds``, or did not want it."""
        self.credit -= seconds
        if self.credit <= self._slice * NOTHING:
            self._begin_anew()

    def limit(self) -> None:
        """It could not use what it was given: of what it earned meanwhile one slice stays."""
        self.credit = min(self.credit, self._slice)
