# SPDX-License-Identifier: Apache-2.0
"""Which priority OpenAI's ``service_tier`` stands for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vllm_qllm.config.priority_class import PriorityClass
from vllm_qllm.config.rule import INT64_MAX, INT64_MIN, check, is_int

SERVICE_TIERS = ("priority", "scale", "auto", "default", "flex")


def tier_priorities(given: Any, classes: Sequence[PriorityClass]) -> dict[str, int]:
    """The priority of every tier.

    Args:
        given: a mapping of tiers to priorities, for those that are not to have their usual one.
        classes: most urgent first; ``flex`` belongs to the last, all others to the first.

    Raises:
        ConfigError: an unknown tier, or what is not a priority.
    """
    check(isinstance(given, Mapping), "service_tiers", given, "an object of tier: priority")
    last = len(classes) - 1
    # The least urgent class begins just above the bound of the one before it.
    flex = 0 if last == 0 else max(1, classes[last - 1].max_priority + 1)  # type: ignore[operator]
    urgent = 0 if last == 0 else classes[0].max_priority or 0
    tiers = {
        "priority": min(-2, urgent),
        "scale": min(-1, urgent),
        "auto": 0,
        "default": 0,
        "flex": flex,
    }
    for tier, priority in given.items():
        check(tier in SERVICE_TIERS, "service_tiers", tier, ", ".join(SERVICE_TIERS))
        check(
            is_int(priority) and INT64_MIN <= priority <= INT64_MAX,
            f"service_tiers.{tier}",
            priority,
            "a 64-bit integer",
        )
        tiers[tier] = priority
    return tiers
