# SPDX-License-Identifier: Apache-2.0
"""The most urgent work runs, at once; what it holds back ages and is never starved."""

from __future__ import annotations

from vllm_qllm.config import PriorityConfig
from vllm_qllm.policy.base import ClassView, EngineView, Plan, Resume, Run, SuspendedView


class StrictPolicy:
    """Strict order by class, with preemption inside the step and a bound on every wait.

    Work that has been held back for its class's ``max_wait_ms`` runs for ``slice_ms`` before
    more urgent work continues, so a less urgent class keeps at least
    ``slice / (max_wait + slice)`` of the machine however much urgent work there is.
    """

    suspendable = True

    def __init__(self, config: PriorityConfig) -> None:
        self._max_wait = [c.max_wait_ms / 1000 for c in config.classes]
        self._slice = [c.slice_ms / 1000 for c in config.classes]

    def plan(self, view: EngineView) -> Plan:
        """Resume what has waited too long, else run the most urgent class that has work."""
        if view.suspended and self._is_overdue(view):
            return Resume(self._slice[view.suspended[-1].rank], protected=True)
        if not view.ready:
            return Resume()
        leader, *others = view.ready
        for held in others:
            if held.starved >= self._max_wait[held.rank]:
                budget = self._slice[held.rank]
                return Run(held.rank, 0, self.suspendable, budget, protected=True)
        return Run(leader.rank, view.ride_limit, self.suspendable and leader.rank > 0)

    def _is_overdue(self, view: EngineView) -> bool:
        *outer, inner = view.suspended
        patience = self._max_wait[inner.rank]
        behind: list[SuspendedView | ClassView] = [*outer]
        behind += (c for c in view.classes[inner.rank + 1 :] if c.has_work)
        if any(held.starved >= self._max_wait[held.rank] for held in behind):
            # Less urgent work is overdue and must wait for this step: it gets every second slice.
            patience = min(patience, self._slice[inner.rank])
        return inner.starved >= patience
