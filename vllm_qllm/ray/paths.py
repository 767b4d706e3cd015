# SPDX-License-Identifier: Apache-2.0
"""What of a server clients may reach."""

from __future__ import annotations

import re
from typing import Any

# Everything else of a server, /metrics and what changes its state, stays inside.
_OPEN = re.compile(r"/v1/(?!(un)?load_lora_adapter(/|$)).*|/health")
# Letters that mean themselves to everybody who reads a path on its way, and are never decoded.
_PLAIN = re.compile(r"[\w.~:@+,=/-]+", re.ASCII)


def is_open(path: str) -> bool:
    """Whether a request for ``path``, without its query and as it was sent, is passed on.

    One that somebody on the way may read as another path is not: with a part that is encoded,
    with ``.``, ``..`` or nothing for a segment, or with parameters.
    """
    _, *segments, _ = f"{path}/".split("/")
    return (
        _PLAIN.fullmatch(path) is not None
        and _OPEN.fullmatch(path) is not None
        and not {".", ".."}.intersection(segments)
        and "" not in segments[:-1]
    )


def target_of(scope: Any) -> str | None:
    """Path and query of an ASGI request, to be sent as they came; None if it is not passed on.

    What the server in front has decoded once is not decoded again.
    """
    path: str = scope["path"]
    sent: bytes = scope.get("raw_path") or path.encode()
    if sent.partition(b"?")[0] != path.encode() or not is_open(path):
        return None
    query: bytes = scope.get("query_string", b"")
    return path + (f"?{query.decode('latin-1')}" if query else "")
