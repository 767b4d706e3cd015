# SPDX-License-Identifier: Apache-2.0
"""The priority that a tenant's request gets, or why it gets none; limits apart."""

from __future__ import annotations

from vllm_qllm.access.refusal import Refusal
from vllm_qllm.access.tenant import Tenant
from vllm_qllm.config import PriorityConfig


def grant(config: PriorityConfig, tenant: Tenant, asked: int | None) -> int | Refusal:
    """The priority, in a class that the tenant may use.

    Args:
        config: of the server.
        tenant: whose request it is.
        asked: the priority that it asks for; None when it leaves the choice to the server.
    """
    may_lower = tenant.above == "lower"
    allowed = [level for level, c in enumerate(config.classes) if c.name in tenant.classes]
    priority = _default(config, tenant, allowed) if asked is None else asked
    level = config.level(priority)
    cls = config.classes[level].name
    if level not in allowed:
        less_urgent = [other for other in allowed if other > level]
        if not may_lower or not less_urgent:
            names = ", ".join(config.classes[other].name for other in allowed)
            text = f"class {cls} is not open to this key; allowed: {names}"
            return Refusal("class", text, cls, "priority")
        level = less_urgent[0]
        priority, cls = config.usual_priority(level), config.classes[level].name
    least = tenant.classes[cls].min_priority
    if least is not None and priority < least:
        if asked is not None and not may_lower:
            text = f"priority is {priority}; allowed for this key: {least} and up"
            return Refusal("priority", text, cls, "priority")
        priority = least
    return priority


def _default(config: PriorityConfig, tenant: Tenant, allowed: list[int]) -> int:
    if tenant.default_class is not None:
        level = next(r for r in allowed if config.classes[r].name == tenant.default_class)
    else:
        usual = config.level(0)
        level = usual if usual in allowed else allowed[0]
    return config.usual_priority(level)
