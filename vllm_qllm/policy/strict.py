# SPDX-License-Identifier: Apache-2.0
"""The most urgent work runs, at once; what it holds back ages and is never starved."""

from __future__ import annotations

from vllm_qllm.config import PriorityConfig
from vllm_qllm.policy.base import EngineView, Plan, Resume, Run, SuspendedView


class StrictPolicy:
    """Strict order by class, with preemption inside the step and a bound on every wait.

    Work that has been held back for its class's ``max_wait_ms`` runs for ``slice_ms``, over as
    many steps as that takes, before more urgent work continues. So a less urgent class keeps
    ``slice / (max_wait + slice)`` of the machine however much urgent work there is.
    """

    suspendable = True

    def __init__(self, config: PriorityConfig) -> None:
        self._slice = [c.slice_ms / 1000 for c in config.classes]

    def plan(self, view: EngineView) -> Plan:
        """Give what is owed, else run the most urgent class that has work."""
        if view.suspended:
            inner = view.suspended[-1]
            budget = max(view.classes[inner.level].owed, self._for_others(view, inner))
            if budget:
                return Resume(budget, protected=True)
        if not view.ready:
            return Resume()
        leader, *others = view.ready
        # Whoever is owed the most slices comes first: what is always served before others, each
        # time for the rest of a slice, would keep these from theirs for good.
        held = max(others, key=lambda c: c.owed / self._slice[c.level], default=leader)
        if held is not leader and held.owed:
            return Run(held.level, 0, self.suspendable, held.owed, protected=True)
        return Run(leader.level, view.ride_limit, self.suspendable and leader.level > 0)

    def _for_others(self, view: EngineView, inner: SuspendedView) -> float:
        """Less urgent work that is owed time must wait for this step: it gets every second slice.

        Until it is done, however little its own class is owed. The longer that takes the more they
        are owed, and so much it may have, up to half of the time.
        """
        slice_ = self._slice[inner.level]
        owed = max((c.owed for c in view.classes[inner.level + 1 :]), default=0.0)
        if not owed or inner.starved < slice_:
            return 0.0
        return max(slice_, min(owed, inner.starved))
