# SPDX-License-Identifier: Apache-2.0
"""Which host slots are free."""

from __future__ import annotations

from collections.abc import Iterable


class HostSlots:
    """Hands out slots, lowest first, so that memory which was never used stays unused.

    A slot that is given back while a step is being put together may still be read by that step,
    whose copies to the host run before those from it: it is free again from the next step on.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._free = list(range(count - 1, -1, -1))
        self._next_step: list[int] = []

    @property
    def free(self) -> int:
        """Slots that can be taken now."""
        return len(self._free)

    def take(self) -> int | None:
        """A free slot; None when there is none."""
        return self._free.pop() if self._free else None

    def give_back(self, slots: Iterable[int]) -> None:
        """Let slots be used again, from the next step on."""
        self._next_step += slots

    def give_back_at_once(self, slots: Iterable[int]) -> None:
        """Let slots be used again that no step is going to read."""
        self._free += slots

    def step_is_complete(self) -> None:
        """The step that may read slots given back is put together."""
        self._free += sorted(self._next_step, reverse=True)
        self._next_step.clear()
