# SPDX-License-Identifier: Apache-2.0
"""The most urgent work runs, at once; what it holds back ages and is never starved."""

from __future__ import annotations

from vllm_qllm.config import PriorityConfig
from vllm_qllm.policy.base import EngineView, Plan, Resume, Run


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
        suspended = view.suspended
        if suspended and suspended.starved >= self._max_wait[suspended.rank]:
            return Resume(self._slice[suspended.rank])
        limit = suspended.rank if suspended else len(view.classes)
        ready = [c for c in view.classes[:limit] if c.has_work]
        if not ready:
            return Resume()
        leader = ready[0]
        for held in ready[1:]:
            if held.starved >= self._max_wait[held.rank]:
                return Run(held.rank, suspendable=self.suspendable, budget=self._slice[held.rank])
        # An urgent prefill runs alone; urgent decodes may take others along.
        pure_decode = not (leader.waiting or leader.prefilling)
        return Run(
            leader.rank,
            riders=view.ride_limit if pure_decode else 0,
            suspendable=self.suspendable and leader.rank > 0,
        )
