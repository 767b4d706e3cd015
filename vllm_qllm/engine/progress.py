# SPDX-License-Identifier: Apache-2.0
"""How far each request has come, and when."""

from __future__ import annotations

import time
from dataclasses import dataclass

from vllm.v1.request import Request


@dataclass(slots=True)
class Progress:
    """One request from its arrival on. Times are ``time.monotonic()`` seconds.

    Attributes:
        level: its class.
        arrived: when the engine's IO thread saw it.
        serial: its number in the timeline, 0 while that is off.
        started: when its first work began.
        first_token: when it got that.
        last_token: when it got the last one so far.
        tokens: output tokens so far.
    """

    level: int
    arrived: float
    serial: int = 0
    started: float | None = None
    first_token: float | None = None
    last_token: float | None = None
    tokens: int = 0

    def advance(self, tokens: int, now: float) -> None:
        """It has ``tokens`` of output at ``now``, which are more than before."""
        if self.first_token is None:
            self.first_token = now
        self.last_token, self.tokens = now, tokens

    @property
    def seconds_per_token(self) -> float | None:
        """Mean time between its tokens; None before the second one."""
        if self.first_token is None or self.last_token is None or self.tokens < 2:
            return None
        return (self.last_token - self.first_token) / (self.tokens - 1)


class ProgressTable:
    """The progress of all requests that have not ended."""

    def __init__(self) -> None:
        self._of: dict[str, Progress] = {}

    def of(self, request_id: str) -> Progress | None:
        """That of one request; None when it has ended."""
        return self._of.get(request_id)

    def arrived(self, request: Request, level: int) -> Progress | None:
        """Follow a request from the moment that the IO thread noted; None if it is followed."""
        if request.request_id in self._of:
            return None
        arrived = getattr(request, "priority_arrived", None) or time.monotonic()
        progress = self._of[request.request_id] = Progress(level, arrived)
        return progress

    def ended(self, request_id: str) -> Progress | None:
        """Follow a request no longer; what became of it, once."""
        return self._of.pop(request_id, None)
