# SPDX-License-Identifier: Apache-2.0
"""What has become of a request: an answer, or an error in its place."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import httpx

# What an answer has a list of, by path; elsewhere any JSON will do that does not say "error".
LISTS = {
    "/v1/chat/completions": "choices",
    "/v1/chat/completions/batch": "choices",
    "/v1/completions": "choices",
    "/v1/embeddings": "data",
    "/v1/responses": "output",
}
# Of a request that the server has ended for its own reasons.
UNFINISHED = ("abort", "error")
MAX_TEXT = 1000


class NoAnswer(ValueError):
    """A body that is no answer, whatever the status says; the message is the reason."""


@dataclass(frozen=True)
class Answer:
    """What is written down: one of both is None, as in OpenAI's batch files.

    Attributes:
        response: status, the server's name of the request, and body.
        error: code and message, when no server has answered.
    """

    response: dict[str, Any] | None
    error: dict[str, Any] | None = None

    @property
    def is_good(self) -> bool:
        """Whether it answers the request."""
        return self.response is not None and is_success(self.response["status_code"])


def is_success(status: int) -> bool:
    """Whether a status of HTTP is one of success."""
    return 200 <= status < 300


def failed(code: str, message: str) -> Answer:
    """An error without a response."""
    return Answer(None, {"code": code, "message": message})


def answered(url: str, response: httpx.Response) -> Answer:
    """What a response says.

    Args:
        url: path that was asked.
        response: read to its end.
    """
    status = response.status_code
    try:
        body = _json(response.content)
        if is_success(status):
            _check(url, body)
    except NoAnswer as error:
        text = response.content.decode(errors="replace")[:MAX_TEXT]
        if is_success(status):
            return failed("no_answer", f"status {status}, but the answer {error}: {text}")
        body = {"error": {"message": text, "code": status}}
    if 300 <= status < 400:
        place = response.headers.get("Location", "nowhere")[:MAX_TEXT]
        message = f"the server redirects to {place}; redirects are not followed"
        body = {"error": {"message": message, "code": status}}
    request_id = response.headers.get("X-Request-Id")
    return Answer({"status_code": status, "request_id": request_id, "body": body})


def _json(content: bytes) -> Any:
    try:
        return json.loads(content, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise NoAnswer("is not JSON") from None


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _check(url: str, body: Any) -> None:
    """Raises NoAnswer when this cannot be the answer to what was asked."""
    if not isinstance(body, dict | list):
        raise NoAnswer("is no object")
    fields: dict[str, Any] = body if isinstance(body, dict) else {}
    name = LISTS.get(url.rstrip("/"))
    if name is not None and not isinstance(fields.get(name), list):
        raise NoAnswer(f"has no {name}")
    if fields.get("error"):
        raise NoAnswer("is an error")
    if name == "choices":
        reasons = [c.get("finish_reason") for c in fields[name] if isinstance(c, dict)]
        if not reasons or len(reasons) != len(fields[name]):
            raise NoAnswer("has choices without content")
        if any(reason in UNFINISHED for reason in reasons):
            raise NoAnswer("was broken off by the server")
    if name == "output" and fields.get("status") not in ("completed", "incomplete"):
        raise NoAnswer(f"has status {fields.get('status')!r:.100}")
