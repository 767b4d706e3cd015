# SPDX-License-Identifier: Apache-2.0
"""The class that a request will most likely be served in, before its body is read.

It decides whose body is read first, and nothing else: what the handler finds out then counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from starlette.datastructures import Headers

from vllm_qllm.access.route_kind import RouteKind, kind_of
from vllm_qllm.access.tenant_request import TenantRequest
from vllm_qllm.config import PriorityConfig

PRIORITY_HEADER = "X-Vllm-Priority"
# Fields of JSON that say an urgency, and what they may hold. Within a text they have backslashes.
PRIORITY = b'"priority"', re.compile(rb"\s*:\s*([+-]?[0-9]{1,19})(?![0-9.eE])")
SERVICE_TIER = b'"service_tier"', re.compile(rb'\s*:\s*"([\w.-]{1,63})"')
# So many of each are looked at.
MOST = 64


def expected_level(
    config: PriorityConfig,
    route: str,
    tenant_request: TenantRequest | None,
    headers: Headers,
    body: bytes,
) -> int:
    """Index of the class.

    Args:
        config: of the server.
        route: by :func:`vllm_qllm.access.route.route_of`.
        tenant_request: of the tenant; None on a server without tenants.
        headers: of the request.
        body: all of it, JSON or not.
    """
    kind, least = kind_of(route), len(config.classes) - 1
    if kind is RouteKind.DEFAULT:
        return config.level(0 if tenant_request is None else tenant_request.priority)
    if kind is not RouteKind.CLASS:
        return least
    asked = _asked(config, headers, body, auto_asks=tenant_request is None)
    if tenant_request is None:
        return config.level(asked or 0)
    granted = tenant_request.expects(asked)
    return least if granted is None else config.level(granted)


def _asked(config: PriorityConfig, headers: Headers, body: bytes, *, auto_asks: bool) -> int | None:
    """The priority that a request seems to ask for, None for none.

    Of several in a body, one of them perhaps in a schema, the least urgent counts.
    """
    header = headers.get(PRIORITY_HEADER)
    if header is not None:
        header = header.strip()
        return int(header) if re.fullmatch(r"[+-]?[0-9]{1,19}", header) else None
    numbers = [int(said) for said in _said(PRIORITY, body)]
    if numbers:
        return max(numbers)
    tiers = [said.decode() for said in _said(SERVICE_TIER, body)]
    known = [config.tier_priority(tier) for tier in tiers if auto_asks or tier != "auto"]
    return max((priority for priority in known if priority is not None), default=None)


def _said(field: tuple[bytes, re.Pattern[bytes]], body: bytes) -> Iterator[bytes]:
    name, value = field
    start = 0
    for _ in range(MOST):
        if (start := body.find(name, start)) < 0:
            return
        start += len(name)
        if (said := value.match(body, start)) is not None:
            yield said[1]
