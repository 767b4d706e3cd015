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


def priority_of(config: PriorityConfig, request: Any, raw_request: Any | None = None) -> int:
    """The priority that a request asks for; all that it says about it must be valid.

    Args:
        config: for the priority of each service tier.
        request: the parsed body, a model of vLLM's that allows extra fields.
        raw_request: for the headers; None when the request did not come by HTTP.

    Raises:
        VLLMValidationError: a header, priority or service tier that cannot be understood, or a
            beam search, which vLLM always runs with priority 0, that asks for another.
    """
    # vLLM declares service_tier for responses only; elsewhere it arrives as an extra field.
    tier = getattr(request, "service_tier", None)
    priority = 0 if tier is None else _from_tier(config, tier)
    field, said = "service_tier", tier
    # Its default is 0; only a priority that the body names comes before the tier.
    if "priority" in request.model_fields_set:
        field, said = "priority", request.priority
        priority = _in_range(field, said)
    header = None if raw_request is None else raw_request.headers.get(PRIORITY_HEADER)
    if header is not None:
        field, said = PRIORITY_HEADER, header
        priority = _from_header(header)
    if priority != 0 and getattr(request, "use_beam_search", False):
        raise _refuse(field, said, "nothing but priority 0 with use_beam_search")
    return priority
