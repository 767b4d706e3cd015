# SPDX-License-Identifier: Apache-2.0
"""Policies: pure decisions on plain records. No vLLM, no torch, no clock of their own."""

from vllm_qllm.policy.base import (
    ClassView,
    EngineView,
    KeepsTurns,
    Plan,
    Policy,
    Resume,
    Run,
    SuspendedView,
    TurnView,
)
from vllm_qllm.policy.registry import resolve
from vllm_qllm.policy.service import Service, riding
from vllm_qllm.policy.step import StepPolicy
from vllm_qllm.policy.strict import StrictPolicy

__all__ = [
    "ClassView",
    "EngineView",
    "KeepsTurns",
    "Plan",
    "Policy",
    "Resume",
    "Run",
    "Service",
    "StepPolicy",
    "StrictPolicy",
    "SuspendedView",
    "TurnView",
    "resolve",
    "riding",
]
