# SPDX-License-Identifier: Apache-2.0
"""One line of the input, checked before anything is sent."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vllm_qllm.api.said import ContradictionError, said_in

# Where a body may say how urgent it is. Others are sent as they are.
WITH_TIER = (
    "/v1/chat/completions",
    "/v1/chat/completions/batch",
    "/v1/completions",
    "/v1/responses",
    "/v1/messages",
)
# No "." and "..": a client resolves them, and what is asked is then not below /v1 any more.
_PATH = re.compile(r"/v1(/(?!\.{1,2}(/|$))[\w.~-]+)+/?", re.ASCII)
_CHECKS: tuple[tuple[str, str, Callable[[Any], bool]], ...] = (
    ("method", "POST", lambda v: v == "POST"),
    (
        "url",
        "a path that starts with /v1/, of letters, digits and . _ ~ -",
        lambda v: isinstance(v, str) and len(v) < 1000 and _PATH.fullmatch(v) is not None,
    ),
    ("body", "an object", lambda v: isinstance(v, dict)),
)


class NoRequest(ValueError):
    """A line without an id by which its answer could be found; the message says why."""


@dataclass(frozen=True)
class Request:
    """A line that names itself.

    Attributes:
        custom_id: by which its answer is found.
        url: path on the server.
        data: JSON to be posted.
        problem: why it cannot be sent, a sentence; "" when it can.
    """

    custom_id: str
    url: str = ""
    data: bytes = b""
    problem: str = ""


def parse(line: bytes, tier: str) -> Request:
    """What a line asks for.

    Args:
        line: of the input.
        tier: ``service_tier`` of a request that says neither that nor ``priority``.

    Raises:
        NoRequest: it has no ``custom_id``.
    """
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise NoRequest(f"is not JSON: {error}") from None
    custom_id = data.get("custom_id") if isinstance(data, dict) else None
    if not isinstance(custom_id, str) or not custom_id:
        found = f"custom_id is {custom_id!r:.100}" if isinstance(data, dict) else "is no object"
        raise NoRequest(f"{found}; allowed: an object with a custom_id that is not empty")
    for field, allowed, fits in _CHECKS:
        if not fits(data.get(field)):
            value = f"{data[field]!r:.100}" if field in data else "missing"
            return Request(custom_id, problem=f"{field} is {value}; allowed: {allowed}")
    body = data["body"]
    # An answer that is not there yet when the request is answered would never be fetched.
    for field in ("stream", "background"):
        if body.get(field):
            problem = f"body.{field} is {body[field]!r:.100}; allowed: false"
            return Request(custom_id, problem=problem)
    if data["url"] in WITH_TIER and not _says_how_urgent(body):
        body = body | {"service_tier": tier}
    try:
        # ASCII: half a surrogate, which has no UTF-8, is the server's to judge.
        encoded = json.dumps(body, allow_nan=False).encode()
    except ValueError:
        problem = "body holds NaN or a number without bounds; allowed: JSON"
        return Request(custom_id, problem=problem)
    except RecursionError:
        return Request(custom_id, problem="body is nested too deeply")
    return Request(custom_id, data["url"], encoded)


def _says_how_urgent(body: dict[str, Any]) -> bool:
    try:
        said = said_in(body)
    except ContradictionError:
        return True  # the server refuses it
    return said.priority is not None or said.service_tier is not None
