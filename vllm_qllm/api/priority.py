# SPDX-License-Identifier: Apache-2.0
"""The priority of an HTTP request: header, then ``priority``, then ``service_tier``, then 0."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError
from vllm.entrypoints.generate.base.serving import PRIORITY_HEADER
from vllm.exceptions import VLLMValidationError

from vllm_qllm.api.notices import NOTICES, shown
from vllm_qllm.api.said import EXTRA, ContradictionError, Said, said_in
from vllm_qllm.config import INT64_MAX, INT64_MIN, PriorityConfig

ALLOWED = f"an integer from {INT64_MIN} to {INT64_MAX}, lower is more urgent"
XARGS = "an object of strings, numbers, and lists of these"
# As vLLM's own models take it.
_PRIORITY = TypeAdapter(Annotated[int, Field(ge=INT64_MIN, le=INT64_MAX)])


class UnclearError(VLLMValidationError):
    """What a request says about its urgency cannot be understood: status 400."""


def _refuse(field: str, value: Any, allowed: str) -> UnclearError:
    # vLLM answers it with status 400 and the field as "param".
    return UnclearError(f"{field} is {shown(value)}; allowed: {allowed}", parameter=field)


def _in_range(field: str, value: int) -> int:
    if not INT64_MIN <= value <= INT64_MAX:
        raise _refuse(field, value, ALLOWED)
    return value


def _from_header(value: str) -> int:
    # int() alone would take "1_000", and would work on a header of a million digits.
    if re.fullmatch(r"\s*[+-]?[0-9]{1,20}\s*", value) is None:
        raise _refuse(PRIORITY_HEADER, value, ALLOWED)
    return _in_range(PRIORITY_HEADER, int(value))


def heard(request: Any, body: Mapping[str, Any]) -> Said:
    """What a request says about its urgency, its priority a number; the request then says it, too.

    A handler may get what another API's request was made into: what that names and the client did
    not is taken back, and what got lost on the way is put in.

    Args:
        request: the parsed body, or what was made of it; a model of vLLM's.
        body: as the client sent it.

    Raises:
        UnclearError: a field that cannot be understood, or two that contradict each other.
    """
    try:
        said = said_in(body)
    except ContradictionError as error:
        place = f"{EXTRA}.{error.field}"
        allowed = f"to say it once, or twice the same: {error.field} is {shown(error.top)}"
        raise _refuse(place, error.extra, allowed) from error
    named = request.model_fields_set
    if said.priority is None:
        named.discard("priority")
    else:
        said = replace(said, priority=_priority(request, said))
        request.priority = said.priority
    lost = "vllm_xargs" in said.extra or getattr(request, "vllm_xargs", None) is None
    if lost and said.vllm_xargs is not None and "vllm_xargs" in type(request).model_fields:
        request.vllm_xargs = _xargs(type(request), said)
    return said


def _priority(request: Any, said: Said) -> int:
    parsed = getattr(request, "priority", None)
    if "priority" in said.extra or "priority" not in request.model_fields_set or parsed is None:
        try:
            return _PRIORITY.validate_python(said.priority)
        except ValidationError:
            raise _refuse(said.place("priority"), said.priority, ALLOWED) from None
    return _in_range("priority", parsed)


def _xargs(model: Any, said: Said) -> Any:
    try:
        return _adapter(model).validate_python(said.vllm_xargs)
    except ValidationError:
        raise _refuse(said.place("vllm_xargs"), said.vllm_xargs, XARGS) from None


@functools.cache
def _adapter(model: Any) -> TypeAdapter[Any]:
    annotation: Any = model.model_fields["vllm_xargs"].annotation
    return TypeAdapter(annotation)


def asked_of(config: PriorityConfig, said: Said, raw_request: Any | None = None) -> int | None:
    """The priority that a request asks for.

    Args:
        config: for the priority of each service tier.
        said: by its body.
        raw_request: for the headers; None when the request did not come by HTTP.

    Returns:
        None when it asks for none; a tier that is not known asks for none.

    Raises:
        UnclearError: a header that cannot be understood.
    """
    asked = None
    if (tier := said.service_tier) is not None:
        asked = config.tier_priority(tier)
        if asked is None:
            NOTICES.unknown_tier(tier, config)
    if said.priority is not None:
        asked = said.priority
    header = _header(raw_request)
    return asked if header is None else _from_header(header)


def leaves_it_open(said: Said, raw_request: Any | None = None) -> bool:
    """Whether a request names nothing but the tier ``auto``: which class a tenant has then."""
    return said.service_tier == "auto" and said.priority is None and _header(raw_request) is None


def _header(raw_request: Any | None) -> str | None:
    return None if raw_request is None else raw_request.headers.get(PRIORITY_HEADER)
