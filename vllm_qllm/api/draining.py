# SPDX-License-Identifier: Apache-2.0
"""A server that was told to end takes no new request, and says so.

vLLM 0.32.0 listens on while it drains, and answers what arrives then with status 200, no text and
the finish reason ``abort``: an answer to a load balancer, and an empty one to a client.
"""

from __future__ import annotations

import functools
import time
from http import HTTPStatus
from typing import Any

from vllm.exceptions import GracefulHTTPError
from vllm.v1.engine.exceptions import EngineDeadError

# Requests that were let in have so long to reach the engine before it takes no more, and load
# balancers to see that /health has changed.
NOTICE_SECONDS = 2.0


class DrainingError(GracefulHTTPError):
    """Answered with status 503, before a stream has begun: safe to send to another server."""

    def __init__(self) -> None:
        super().__init__(
            "The server is shutting down and takes no new requests. "
            "Please try again on a different instance.",
            HTTPStatus.SERVICE_UNAVAILABLE,
        )


class Draining:
    """Whether an engine's client was told to shut down; replaces three of its methods.

    Args:
        client: an ``AsyncLLM``.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._begun = False
        self._closed = False
        for name in ("shutdown", "check_admission", "check_health"):
            replacement = getattr(self, f"_{name}")
            setattr(client, name, functools.partial(replacement, getattr(client, name)))

    def _shutdown(self, original: Any, timeout: float | None = None) -> None:
        # In a thread of its own: requests that run go on meanwhile. It is called again at the end.
        begins, self._begun = not self._begun, True
        if begins and timeout and not self._client.errored:
            time.sleep(NOTICE_SECONDS)
        self._closed = True
        original(timeout=timeout)

    def _check_admission(self, original: Any, n: int = 1, request_id: str | None = None) -> None:
        # Asked twice: before an answer begins, without an id, and when the prompt has been
        # tokenized. A stream that was let in has begun by then.
        if self._closed or (self._begun and request_id is None):
            raise DrainingError
        original(n, request_id)

    async def _check_health(self, original: Any) -> None:
        if self._begun:
            raise EngineDeadError  # the one exception that /health answers with 503
        await original()


def announce(client: Any) -> None:
    """Make an engine's client refuse new requests once it shuts down.

    Args:
        client: an ``AsyncLLM``. Request handlers share it: only the first call changes it.
    """
    if "check_admission" not in vars(client):
        Draining(client)
