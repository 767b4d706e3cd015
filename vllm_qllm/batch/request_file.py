# SPDX-License-Identifier: Apache-2.0
"""The input: one request a line, in the form of OpenAI's batch files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vllm_qllm.batch import BatchError

# Where a body may say how urgent it is. Others are sent as they are.
WITH_TIER = (
    "/v1/chat/completions",
    "/v1/chat/completions/batch",
    "/v1/completions",
    "/v1/responses",
)
FIELDS = {"custom_id", "method", "url", "body"}


@dataclass(frozen=True)
class Request:
    """A line.

    Attributes:
        custom_id: by which its answer is found.
        url: path on the server.
        body: to be posted.
    """

    custom_id: str
    url: str
    body: dict[str, Any]


class RequestFile:
    """A file of requests, read and checked before the first one is sent.

    Args:
        path: of the file. It is read twice, and not kept in memory.
        tier: ``service_tier`` of requests that say neither that nor ``priority``.

    Raises:
        BatchError: it cannot be read, or a line, which is named, is not a request.

    Attributes:
        ids: of all lines.
    """

    def __init__(self, path: str | Path, tier: str) -> None:
        self._path, self._tier = Path(path), tier
        self.ids: set[str] = set()
        for number, request in enumerate(self, 1):
            if request.custom_id in self.ids:
                raise BatchError(
                    f"{path}, request {number}: custom_id {request.custom_id!r} is there before; "
                    "allowed: each once"
                )
            self.ids.add(request.custom_id)

    def __iter__(self) -> Iterator[Request]:
        try:
            with self._path.open(encoding="utf-8") as file:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        yield self._request(line, f"{self._path}, line {number}")
        except (OSError, UnicodeDecodeError) as error:
            raise BatchError(f"{self._path}: {error}") from error

    def _request(self, line: str, where: str) -> Request:
        try:
            data = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BatchError(f"{where} is not JSON: {error}") from None
        if not isinstance(data, dict) or not data.keys() >= FIELDS:
            raise BatchError(f"{where}; allowed: an object with {', '.join(sorted(FIELDS))}")
        for field, allowed, fits in (
            ("custom_id", "a text that is not empty", lambda v: isinstance(v, str) and v),
            ("method", "POST", lambda v: v == "POST"),
            ("url", "a path that starts with /v1/", lambda v: _is_path(v)),
            ("body", "an object", lambda v: isinstance(v, dict)),
        ):
            if not fits(data[field]):
                raise BatchError(f"{where}: {field} is {data[field]!r:.100}; allowed: {allowed}")
        body = data["body"]
        if body.get("stream"):
            raise BatchError(f"{where}: body.stream is {body['stream']!r:.100}; allowed: false")
        if data["url"] in WITH_TIER and not body.keys() & {"priority", "service_tier"}:
            body = body | {"service_tier": self._tier}
        return Request(data["custom_id"], data["url"], body)


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("/v1/") and value.isprintable()
