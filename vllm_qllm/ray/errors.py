# SPDX-License-Identifier: Apache-2.0
"""Errors of a front's own, in the form of the API that a path belongs to."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import JSONResponse

from vllm_qllm.access.refusal import ANTHROPIC

RETRY_AFTER = 2
# Status: type in the errors of OpenAI, type in those of Anthropic.
TYPES = {
    404: ("NotFoundError", "not_found_error"),
    413: ("RequestTooLargeError", "request_too_large"),
    502: ("ServiceUnavailableError", "overloaded_error"),
    503: ("ServiceUnavailableError", "overloaded_error"),
}


def _body(path: str, status: int, message: str) -> dict[str, Any]:
    is_anthropic = path.startswith(ANTHROPIC)
    error: dict[str, Any] = {"message": message, "type": TYPES[status][is_anthropic]}
    if is_anthropic:
        return {"type": "error", "error": error}
    return {"error": error | {"param": None, "code": status}}


def answer(path: str, status: int, message: str) -> JSONResponse:
    """In place of a replica's answer."""
    again = {"Retry-After": str(RETRY_AFTER)} if status >= 500 else {}
    return JSONResponse(_body(path, status, message), status, headers=again)


def event(path: str, message: str) -> bytes:
    """In a stream that cannot go on; clients raise it as an error."""
    name = "event: error\n" if path.startswith(ANTHROPIC) else ""
    return f"{name}data: {json.dumps(_body(path, 502, message))}\n\n".encode()
