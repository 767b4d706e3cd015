# SPDX-License-Identifier: Apache-2.0
"""What fronts and replicas say to each other."""

from __future__ import annotations

from dataclasses import dataclass

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class ReplicaRequest:
    """A request of a client.

    Attributes:
        method: of HTTP.
        target: path and query.
        headers: those that a replica is to see.
        body: the whole.
        level: of the class that it will most likely be served in, 0 is the most urgent.
        tried: ids of replicas that have had it, and shall not have it again.
    """

    method: str
    target: str
    headers: Headers
    body: bytes
    level: int
    tried: tuple[str, ...] = ()


@dataclass(frozen=True)
class Head:
    """How the answer of a server begins.

    Attributes:
        status: of HTTP.
        headers: those that a client is to see.
    """

    status: int
    headers: Headers

    @property
    def is_stream(self) -> bool:
        """Whether what follows are events, each to be passed on as it comes."""
        return dict(self.headers).get("content-type", "").startswith("text/event-stream")


class ServerLostError(Exception):
    """The server of a replica ended, or broke a connection."""
