# SPDX-License-Identifier: Apache-2.0
"""The priority of an HTTP request: header, then ``priority``, then ``service_tier``, then 0."""

from __future__ import annotations

import re
from typing import Any

from vllm.entrypoints.generate.base.serving import PRIORITY_HEADER
from vllm.exceptions import VLLMValidationError

from vllm_qllm.config import INT64_MAX, INT64_MIN, PriorityConfig

ALLOWED = f"an integer from {INT64_MIN} to {INT64_MAX}, lower is more urgent"


def _refuse(field: str, value: Any, allowed: str) -> VLLMValidationError:
    shown = repr(value)
    if len(shown) > 100:
        shown = shown[:100] + "..."
    # vLLM answers it with status 400 and the field as "param".
    return VLLMValidationError(f"{field} is {shown}; allowed: {allowed}", parameter=field)


def _in_range(field: str, value: int) -> int:
    if not INT64_MIN <= value <= INT64_MAX:
        raise _refuse(field, value, ALLOWED)
    return value


def _from_header(value: str) -> int:
    # int() alone would take "1_000", and would work on a header of a million digits.
    if re.fullmatch(r"\s*[+-]?[0-9]{1,20}\s*", value) is None:
        raise _refuse(PRIORITY_HEADER, value, ALLOWED)
    return _in_range(PRIORITY_HEADER, int(value))


def _from_tier(config: PriorityConfig, tier: Any) -> int:
    if not isinstance(tier, str) or tier not in config.service_tiers:
        raise _refuse("service_tier", tier, ", ".join(config.service_tiers))
    return config.service_tiers[tier]


def asked_of(
    config: PriorityConfig, request: Any, raw_request: Any | None = None, *, auto_asks: bool = True
) -> int | None:
    """The priority that a request asks for; all that it says about it must be valid.

    Args:
        config: for the priority of each service tier.
        request: the parsed body, a model of vLLM's that allows extra fields.
        raw_request: for the headers; None when the request did not come by HTTP.
        auto_asks: whether the tier ``auto`` asks for its priority, or for none.

    Returns:
        None when it asks for none.

    Raises:
        VLLMValidationError: a header, priority or service tier that cannot be understood.
    """
    # vLLM declares service_tier for responses only; elsewhere it arrives as an extra field.
    tier = getattr(request, "service_tier", None)
    asked = None if tier is None else _from_tier(config, tier)
    if tier == "auto" and not auto_asks:
        asked = None
    # Its default is 0; only a priority that the body names comes before the tier.
    if "priority" in request.model_fields_set:
        asked = _in_range("priority", request.priority)
    header = None if raw_request is None else raw_request.headers.get(PRIORITY_HEADER)
    return asked if header is None else _from_header(header)


def priority_of(config: PriorityConfig, request: Any, raw_request: Any | None = None) -> int:
    """As :func:`asked_of`; 0 for a request that asks for none.

    Raises:
        VLLMValidationError: also for a beam search that asks for another priority than 0.
    """
    priority = asked_of(config, request, raw_request) or 0
    refuse_beam_search(request, raw_request, priority)
    return priority


def refuse_beam_search(request: Any, raw_request: Any | None, priority: int) -> None:
    """Raise VLLMValidationError for a beam search of another priority than 0.

    vLLM always runs one with priority 0: it would be served in another class than it was given.
    """
    if priority == 0 or not getattr(request, "use_beam_search", False):
        return
    field, said = "priority", priority
    if raw_request is not None and PRIORITY_HEADER in raw_request.headers:
        field, said = PRIORITY_HEADER, raw_request.headers[PRIORITY_HEADER]
    elif "priority" not in request.model_fields_set and getattr(request, "service_tier", None):
        field, said = "service_tier", request.service_tier
    raise _refuse(field, said, "nothing but priority 0 with use_beam_search")
