# SPDX-License-Identifier: Apache-2.0
"""The class that a request will most likely be served in, before its body is read.

It decides whose body is read first, and nothing else: what the handler finds out then counts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from starlette.datastructures import Headers
from vllm.entrypoints.generate.base.serving import PRIORITY_HEADER

from vllm_qllm.access.route_kind import RouteKind, kind_of
from vllm_qllm.access.tenant_request import TenantRequest
from vllm_qllm.config import PriorityConfig
from vllm_qllm.intake.urgency_fields import PRIORITY, UNCLEAR, urgency_fields


def expected_level(
    config: PriorityConfig,
    route: str,
    tenant_request: TenantRequest | None,
    headers: Headers,
    body: Callable[[], bytes],
) -> int:
    """Index of the class.

    Args:
        config: of the server.
        route: by :func:`vllm_qllm.access.route.route_of`.
        tenant_request: of the tenant; None on a server without tenants.
        headers: of the request.
        body: gives all of it, JSON or not; asked only where nothing else says the class.
    """
    kind, least = kind_of(route), len(config.classes) - 1
    if kind is RouteKind.DEFAULT:
        return config.level(0 if tenant_request is None else tenant_request.priority)
    if kind is not RouteKind.CLASS:
        return least
    header = headers.get(PRIORITY_HEADER)
    if header is None:
        asked = _asked(config, body(), auto_asks=tenant_request is None)
    else:
        header = header.strip()
        asked = int(header) if re.fullmatch(r"[+-]?[0-9]{1,19}", header) else None
    if asked is UNCLEAR:
        return least if tenant_request is None else _least(config, tenant_request)
    if tenant_request is None:
        return config.level(asked or 0)
    granted = tenant_request.expects(asked)
    return least if granted is None else config.level(granted)


def _least(config: PriorityConfig, tenant_request: TenantRequest) -> int:
    """The least urgent class that a tenant may use."""
    levels = range(len(config.classes))
    granted = [tenant_request.expects(config.usual_priority(level)) for level in levels]
    return max(config.level(priority) for priority in granted if priority is not None)


def _asked(config: PriorityConfig, body: bytes, *, auto_asks: bool) -> Any:
    """The priority that a body seems to ask for, None for none, :data:`UNCLEAR` for any.

    Of several the least urgent counts.
    """
    most: int | None = None
    for name, value in urgency_fields(body):
        if name == PRIORITY:
            priority = _number(value)
        elif value == "auto" and not auto_asks:
            continue
        else:
            priority = config.tier_priority(value) if isinstance(value, str) else None
        if priority is UNCLEAR:
            return UNCLEAR
        if priority is not None:
            most = priority if most is None else max(most, priority)
    return most


def _number(value: Any) -> Any:
    """The integer that vLLM's models take a value for; they take strings and "10.0", too."""
    if value is None or value is UNCLEAR or isinstance(value, int):
        return value
    try:
        number = float(value)
    except ValueError:
        return UNCLEAR
    return int(number) if math.isfinite(number) and number.is_integer() else UNCLEAR
