# SPDX-License-Identifier: Apache-2.0
"""One try to have a request answered by one replica."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from vllm_qllm.ray.messages import Head, ReplicaRequest


class NoReplicaError(Exception):
    """There is none, or none takes the request."""


class LostError(Exception):
    """The replica went before its answer was complete.

    Args:
        replica: its id, empty where it was not known yet.
    """

    def __init__(self, replica: str) -> None:
        super().__init__(replica)
        self.replica = replica


class Exchange:
    """Made by :meth:`begin`; must be closed.

    Attributes:
        replica: the id of the one that answers.
        head: how the answer begins.
    """

    replica: str
    head: Head

    def __init__(self, parts: Any) -> None:
        self._parts = parts

    @classmethod
    async def begin(
        cls, replicas: Any, ask: ReplicaRequest, assign_seconds: float
    ) -> Exchange | None:
        """Wait for the beginning of an answer.

        Args:
            replicas: handle of the deployment.
            ask: the request.
            assign_seconds: how long to wait for a replica, not for its answer.

        Returns:
            None when all replicas have had the request.

        Raises:
            NoReplicaError: none has taken it.
            LostError: the replica that had taken it was gone before the answer began.
        """
        exchange = cls(replicas.remote(ask))
        try:
            async with asyncio.timeout(assign_seconds):
                replica = await anext(exchange._parts)
            if replica is None:
                exchange.close()
                return None
            exchange.replica = replica
            exchange.head = await exchange._next()
        except RayError as error:
            exchange.close()
            raise LostError("") from error  # between taking it and saying so
        except (RayServeException, TimeoutError) as error:
            exchange.close()
            raise NoReplicaError(str(error)) from error
        except BaseException:
            exchange.close()
            raise
        return exchange

    async def body(self) -> AsyncIterator[bytes]:
        """The rest.

        Raises:
            LostError: there is no more, and it is not complete.
        """
        while (part := await self._next()) is not None:
            yield part

    async def _next(self) -> Any:
        try:
            return await anext(self._parts, None)
        except (RayError, RayServeException) as error:
            raise LostError(self.replica) from error

    def close(self) -> None:
        """Tell the replica that the client has gone."""
        # One that has failed says so again.
        with contextlib.suppress(RayError, RayServeException):
            self._parts.cancel()
