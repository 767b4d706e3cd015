# SPDX-License-Identifier: Apache-2.0
"""What an operator may configure: parsed and validated once, before any model is loaded.

Every problem raises :class:`ConfigError`, whose message names the field, the value and what is
allowed. No vLLM and no torch here: a configuration can be checked on any machine.
"""

from vllm_qllm.config.priority_class import PriorityClass
from vllm_qllm.config.priority_config import CARRIER, PriorityConfig, carried
from vllm_qllm.config.rule import INT64_MAX, INT64_MIN, ConfigError
from vllm_qllm.config.service_tiers import ALIASES, SERVICE_TIERS

__all__ = [
    "ALIASES",
    "CARRIER",
    "INT64_MAX",
    "INT64_MIN",
    "SERVICE_TIERS",
    "ConfigError",
    "PriorityClass",
    "PriorityConfig",
    "carried",
]
