# SPDX-License-Identifier: Apache-2.0
"""A server that was told to end takes no new request, and says so; what it cannot end, too.

vLLM 0.32.0 listens on while it drains, and answers what arrives then with status 200, no text and
the finish reason ``abort``: an answer to a load balancer, and an empty one to a client. At the end
of the time to drain it kills the engine, and then waits for ever for the answers that it owes.
"""

from __future__ import annotations

import asyncio
import functools
import time
from http import HTTPStatus
from typing import Any

from vllm.exceptions import GracefulHTTPError
from vllm.v1.engine.exceptions import EngineDeadError

# Requests that were let in have so long to reach the engine before it takes no more, and load
# balancers to see that /health has changed.
NOTICE_SECONDS = 2.0
# For the errors of those that are cut off, before the process is killed.
LAST_SECONDS = 1.0


class DrainingError(GracefulHTTPError):
    """Answered with status 503, before a stream has begun: safe to send to another server."""

    def __init__(self) -> None:
        super().__init__(
            "The server is shutting down and takes no new requests. "
            "Please try again on a different instance.",
            HTTPStatus.SERVICE_UNAVAILABLE,
        )


class CutOffError(GracefulHTTPError):
    """The time to drain was over: an error event in a stream, status 503 for anything else."""

    def __init__(self) -> None:
        super().__init__(
            "The server was shut down before the answer was complete. "
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
        ends = time.monotonic() + (timeout or 0.0)
        if begins and timeout and not self._client.errored:
            time.sleep(NOTICE_SECONDS)
        self._closed = True
        # One of several API servers: vLLM waits for the engine of its own only, and there is none.
        if begins and self._client.engine_core.resources.engine_manager is None:
            while time.monotonic() < ends - LAST_SECONDS and self._still_answers():
                time.sleep(0.1)
        # None before the first request.
        reader: asyncio.Task[None] | None = self._client.output_handler
        original(timeout=timeout)
        # Nobody reads what the engine says any more. Queues of requests belong to the loop.
        if reader is not None and not reader.get_loop().is_closed():
            reader.get_loop().call_soon_threadsafe(self._cut_off)

    def _still_answers(self) -> bool:
        return not self._client.errored and self._client.get_num_unfinished_requests() > 0

    def _cut_off(self) -> None:
        self._client.output_processor.propagate_error(CutOffError())

    def _check_admission(self, original: Any, n: int = 1, request_id: str | None = None) -> None:
        # Asked twice: before an answer begins, without an id, and when the prompt has been
        # tokenized. A stream that was let in has begun by then.
        if self._closed or (self._begun and request_id is None):
            raise DrainingError
        original(n, request_id)

    @property
    def begun(self) -> bool:
        """Whether it was told."""
        return self._begun

    async def _check_health(self, original: Any) -> None:
        if self._begun:
            raise EngineDeadError  # the one exception that /health answers with 503
        await original()


def announce(client: Any) -> None:
    """Make an engine's client refuse new requests once it shuts down.

    Args:
        client: an ``AsyncLLM``. Request handlers share it: only the first call changes it.
    """
    if getattr(client, "priority_draining", None) is None:
        client.priority_draining = Draining(client)


def begun(client: Any) -> bool:
    """Whether a client has been told to shut down, and takes no new request."""
    draining = getattr(client, "priority_draining", None)
    return draining is not None and draining.begun
