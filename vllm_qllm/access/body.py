# SPDX-License-Identifier: Apache-2.0
"""The body of a request, as long as it may be."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import Message, Receive

from vllm_qllm.access.refusal import Refusal


class LimitedBody:
    """Counts the bytes of a body while it is read; vLLM and uvicorn read any number of them.

    Args:
        receive: of the ASGI connection.
        max_bytes: that may be read.
        headers: which may say the length in advance.

    Attributes:
        too_large: it is longer than it may be. A reader that reads on sees the client gone.
    """

    def __init__(self, receive: Receive, max_bytes: int, headers: Headers) -> None:
        self._receive, self._max, self._read = receive, max_bytes, 0
        said = headers.get("Content-Length", "")
        self.too_large = said.isascii() and said.isdigit() and _exceeds(said, max_bytes)

    @property
    def refusal(self) -> Refusal:
        """What to answer when it is too large."""
        return Refusal("body", f"the body is too large; allowed: {self._max} bytes")

    async def receive(self) -> Message:
        """The next message, in place of the connection's own ``receive``."""
        if self.too_large:
            return {"type": "http.disconnect"}
        message = await self._receive()
        if message["type"] == "http.request":
            self._read += len(message.get("body", b""))
            if self._read > self._max:
                self.too_large = True
                return {"type": "http.disconnect"}
        return message


def _exceeds(digits: str, limit: int) -> bool:
    digits = digits.lstrip("0")  # Python refuses to convert thousands of digits
    return len(digits) > 20 or int(digits or 0) > limit
