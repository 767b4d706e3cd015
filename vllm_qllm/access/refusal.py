# SPDX-License-Identifier: Apache-2.0
"""Why a request is not served, as the client, the metrics and the audit line are told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# Reason, which is a label of metrics, and HTTP status.
STATUS = {
    "no_key": 401,
    "unknown_key": 401,
    "gateway": 401,
    "class": 403,
    "priority": 403,
    "operator": 403,
    "sequences": 400,
    "background": 400,
    "body": 413,
    "headers": 431,
    "rate": 429,
    "concurrency": 429,
    "overload": 503,
    "items": 413,
}
# Status, type in the errors of vLLM and OpenAI, type in those of Anthropic.
TYPES = {
    400: ("BadRequestError", "invalid_request_error"),
    401: ("AuthenticationError", "authentication_error"),
    403: ("PermissionDeniedError", "permission_error"),
    413: ("RequestTooLargeError", "request_too_large"),
    429: ("RateLimitError", "rate_limit_error"),
    431: ("RequestTooLargeError", "request_too_large"),
    503: ("ServiceUnavailableError", "overloaded_error"),
}
ANTHROPIC = "/v1/messages"
# There 413 is for bytes alone: a conversation of too many parts is a prompt that is too long.
STATUS_OF_ANTHROPIC = STATUS | {"items": 400}


def is_anthropic(path: str) -> bool:
    """Whether a path belongs to Anthropic's API."""
    return path.startswith(ANTHROPIC)


@dataclass(frozen=True)
class Refusal:
    """An answer in place of service.

    Attributes:
        reason: a key of :data:`STATUS`.
        message: a sentence for the client; no key and no text of a prompt.
        cls: the class that was asked for, "none" while that is not known.
        param: the field of the request that is the matter.
        retry_after: after how many seconds it may be worth asking again; None: never.
    """

    reason: str
    message: str
    cls: str = "none"
    param: str | None = None
    retry_after: int | None = None

    @property
    def status(self) -> int:
        """The HTTP status."""
        return STATUS[self.reason]

    def status_at(self, path: str) -> int:
        """The HTTP status in the API that ``path`` belongs to."""
        return (STATUS_OF_ANTHROPIC if is_anthropic(path) else STATUS)[self.reason]

    def type_at(self, path: str) -> str:
        """The type of the error in the API that ``path`` belongs to."""
        return TYPES[self.status_at(path)][is_anthropic(path)]

    def body_at(self, path: str) -> dict[str, Any]:
        """The error as the API that ``path`` belongs to words it."""
        error: dict[str, Any] = {"message": self.message, "type": self.type_at(path)}
        if is_anthropic(path):
            return {"type": "error", "error": error}
        return {"error": error | {"param": self.param, "code": self.status_at(path)}}
