# SPDX-License-Identifier: Apache-2.0
"""Tenants in the status document: the same numbers as on ``/metrics``, the busiest first."""

from __future__ import annotations

from typing import Any

from vllm_qllm.access.access_control import AccessControl
from vllm_qllm.access.limiter import ACTIVE, ADMITTED, REASONS, REFUSED
from vllm_qllm.access.tenants_config import NONE

MAX_ROWS = 100


def tenants_document(access: AccessControl) -> dict[str, Any]:
    """What tenants have done in their classes since the start, as ``docs/status.md`` says.

    Args:
        access: of this process; its numbers are those of all API servers.
    """
    tenants_config = access.tenants_config
    classes = [c.name for c in access.config.classes]
    rows = []
    for tenant in (*tenants_config.tenants, NONE):
        for cls in (*classes, NONE):
            numbers = access.limiter.numbers(tenant, cls)
            if any((numbers[ADMITTED], numbers[ACTIVE], *numbers[REFUSED:])):
                rows.append(_row(tenant, cls, numbers))
    rows.sort(key=lambda row: (-row["refused"], -row["in_flight"], -row["requests"]))
    return {
        "configured": len(tenants_config.tenants),
        "max_in_flight": dict(tenants_config.max_in_flight),
        "rows": rows[:MAX_ROWS],
        "left_out": max(0, len(rows) - MAX_ROWS),
    }


def _row(tenant: str, cls: str, numbers: tuple[float, ...]) -> dict[str, Any]:
    reasons = {
        reason: int(count)
        for reason, count in zip(REASONS, numbers[REFUSED:], strict=False)
        if count
    }
    return {
        "tenant": tenant,
        "class": cls,
        "requests": int(numbers[ADMITTED]),
        "in_flight": int(numbers[ACTIVE]),
        "refused": sum(reasons.values()),
        "reasons": reasons,
    }
