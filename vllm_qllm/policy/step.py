# SPDX-License-Identifier: Apache-2.0
"""Class-aware scheduling between steps only: what strict is without in-step preemption."""

from __future__ import annotations

from vllm_qllm.policy.strict import StrictPolicy


class StepPolicy(StrictPolicy):
    """The strict order, decided once a step; a step that has started runs to its end."""

    suspendable = False
