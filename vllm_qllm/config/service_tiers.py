# SPDX-License-Identifier: Apache-2.0
"""Which priority each ``service_tier`` stands for: those of OpenAI, and an operator's own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from vllm_qllm.config.priority_class import PriorityClass, usual_priority
from vllm_qllm.config.rule import INT64_MAX, INT64_MIN, check, is_int

SERVICE_TIERS = ("priority", "scale", "auto", "default", "flex")
# Other names of these: newer ones of OpenAI, and what Anthropic's API calls its usual tier.
ALIASES = {"fast": "priority", "ultrafast": "priority", "standard_only": "default"}
# The tier of all names that nothing else is said about.
ANY_OTHER = "*"
NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,62}", re.ASCII)


def tier_priorities(given: Any, classes: Sequence[PriorityClass]) -> dict[str, int]:
    """The priority of every tier.

    Args:
        given: a mapping of tiers to priorities or names of classes: for those that are not to have
            their usual one, for names of one's own, and for ``*``, all other names.
        classes: most urgent first; ``flex`` belongs to the last, all others to the first.

    Raises:
        ConfigError: a name that cannot be one, or what is neither a priority nor a class.
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
    return tiers | {tier: _priority(tier, value, classes) for tier, value in given.items()}


def _priority(tier: Any, value: Any, classes: Sequence[PriorityClass]) -> int:
    check(
        isinstance(tier, str) and (tier == ANY_OTHER or NAME.fullmatch(tier) is not None),
        "service_tiers",
        tier,
        f"{', '.join(SERVICE_TIERS)}, a name of at most 63 letters, digits, _, . and -, or "
        f"{ANY_OTHER} for all other names",
    )
    names = [c.name for c in classes]
    if isinstance(value, str) and value in names:
        return usual_priority(classes, names.index(value))
    check(
        is_int(value) and INT64_MIN <= value <= INT64_MAX,
        f"service_tiers.{tier}",
        value,
        f"a 64-bit integer, or the name of a class: {', '.join(names)}",
    )
    return int(value)


def priority_of_tier(tiers: Mapping[str, int], tier: Any) -> int | None:
    """The priority that a request's ``service_tier`` stands for, None for one that is not known.

    Args:
        tiers: what :func:`tier_priorities` has settled.
        tier: whatever the request says.
    """
    if not isinstance(tier, str):
        return None
    for name in (tier, ALIASES.get(tier), ANY_OTHER):
        if name is not None and name in tiers:
            return tiers[name]
    return None
