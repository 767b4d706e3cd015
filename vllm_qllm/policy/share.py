# SPDX-License-Identifier: Apache-2.0
"""What one class is owed of the machine's time, and what it owes."""

from __future__ import annotations

import copy

from vllm_qllm.policy.wait import Wait

# Being held back for longer than this beyond ``max_wait``, by long steps of others, earns nothing
# more: it was not work that took so long, the machine stood still.
LATE = 60.0
# The longest step for which slices are paid back; of a longer one the rest is forgiven.
LONGEST = 10.0


class Share:
    """The account of one class, which keeps it at ``slice / (max_wait + slice)`` of the time.

    A class whose decodes ride in steps of others while its prompts stand still is not served, so
    each of the two kinds has a :class:`Wait` of its own. A step that the class leads serves both.
    What a slice ran over, because a step ends no sooner, is a debt of the class: it earns nothing
    before as much time has passed as would have earned it. All times are seconds.

    Args:
        max_wait: for how long work of the class may be held back.
        slice_: for how long it then runs.

    Attributes:
        prompts: the wait of requests with prompt tokens left.
        decodes: that of the others.
        debt: seconds of the machine that the class had before it had earned them.
    """

    __slots__ = ("_rate", "debt", "decodes", "prompts")

    def __init__(self, max_wait: float, slice_: float) -> None:
        self._rate = slice_ / max_wait
        most = slice_ + LATE * self._rate
        self.prompts = Wait(max_wait, slice_, most)
        self.decodes = Wait(max_wait, slice_, most)
        self.debt = 0.0

    def note(self, prompts: bool, decodes: bool) -> None:
        """Note which work there is that could run or is part of a suspended step."""
        if decodes and self.prompts.present and not prompts:
            self.decodes.take_over(self.prompts)  # computed, they go on as decodes
        if prompts and self.decodes.present and not decodes:
            self.prompts.take_over(self.decodes)  # they have lost their KV
        self.prompts.present, self.decodes.present = prompts, decodes

    @property
    def present(self) -> bool:
        """Whether there is any."""
        return self.prompts.present or self.decodes.present

    @property
    def owed(self) -> float:
        """Seconds of the machine that the class is to be given now; 0: none yet."""
        waits = (self.prompts, self.decodes)
        return max(w.credit if w.due and w.present else 0.0 for w in waits)

    def hold(self, seconds: float, riding: float = 0.0) -> None:
        """``seconds`` have passed in which another class led, or none.

        Args:
            seconds: that have passed.
            riding: the share of them that is service of its decodes.
        """
        paid = min(self.debt, seconds * self._rate)
        self.debt -= paid
        earning = seconds - paid / self._rate
        self.prompts.hold(seconds, earning)
        self.decodes.hold(seconds, earning, riding)

    def serve(self, seconds: float, charged: bool) -> None:
        """Its class has led for ``seconds``.

        Args:
            seconds: that it led.
            charged: whether more urgent work was held back meanwhile, for its sake.
        """
        earned = max(self.prompts.credit, self.decodes.credit)
        self.prompts.serve(seconds)
        self.decodes.serve(seconds)
        if charged:
            self.debt = min(self.debt + max(0.0, seconds - earned), LONGEST)

    def copy(self) -> Share:
        """One that goes on from here without this one."""
        other = copy.copy(self)
        other.prompts, other.decodes = copy.copy(self.prompts), copy.copy(self.decodes)
        return other

    def limit(self) -> None:
        """The class could not use what it was given: it lacks more than time."""
        self.prompts.limit()
        self.decodes.limit()
