# SPDX-License-Identifier: Apache-2.0
"""The actor that minds one server, and passes requests to it."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from typing import Any

import httpx
from ray import serve

from vllm_qllm.ray.messages import Head, ReplicaRequest, ServerLostError
from vllm_qllm.ray.server import Server
from vllm_qllm.ray.settings import Settings

# Of one connection only, or written anew on the way.
DROPPED = {
    *("connection", "keep-alive", "transfer-encoding", "content-length"),
    *("date", "server", "x-request-id"),
}


class Replica:
    """A deployment of Serve.

    Args:
        settings: fields of :class:`Settings`.
    """

    async def __init__(self, settings: dict[str, Any]) -> None:  # type: ignore[misc]
        self._id: str = serve.get_replica_context().replica_id.unique_id
        self._server = Server(Settings.parse(settings))
        try:
            await self._server.start()
        except BaseException:
            await self._server.stop()
            raise

    async def answer(self, ask: ReplicaRequest) -> AsyncGenerator[str | Head | bytes | None, None]:
        """Who answers; then how the answer begins, and its parts as they come.

        None alone, for a request that was here before. Closed early, it ends the connection, which
        is how the server learns that nobody waits.

        Raises:
            ServerLostError: the server has gone.
        """
        if self._id in ask.tried:
            yield None
            return
        yield self._id
        try:
            async with self._server.client.stream(
                ask.method, ask.target, headers=list(ask.headers), content=ask.body
            ) as answer:
                headers = [(name.lower(), value) for name, value in answer.headers.multi_items()]
                kept = tuple((name, value) for name, value in headers if name not in DROPPED)
                yield Head(answer.status_code, kept)
                # As it was sent, and all that is there at once: one token at a time costs Ray more.
                async for part in answer.aiter_raw():
                    yield part
        except httpx.HTTPError as error:
            raise ServerLostError(f"{type(error).__name__}: {error}") from None

    async def record_routing_stats(self) -> dict[str, Any]:
        """For the router; called by Serve."""
        at = time.time()
        return {"at": at, "counts": await self._server.counts()}

    async def check_health(self) -> None:
        """Called by Serve, which replaces a replica that is ill three times in a row."""
        if not await self._server.is_well():
            raise RuntimeError(f"the server does not answer; exit status: {self._server.status}")

    async def __del__(self) -> None:
        """Called by Serve when the last request has been answered, or the time for it is over."""
        if hasattr(self, "_server"):
            await self._server.stop()
