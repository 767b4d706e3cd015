# SPDX-License-Identifier: Apache-2.0
"""What kind of path a request goes to, which says who may use it and who finds out its class.

A path that is not listed is for operators: what vLLM adds is closed until somebody has looked.
"""

from __future__ import annotations

from enum import Enum


class Door(Enum):
    """Kinds of paths."""

    OPEN = "no key is needed: for probes, Prometheus and readers of the documentation"
    TENANT = "any tenant's: nothing is generated"
    CLASS = "any tenant's: the handler of the request finds out its class"
    URGENT = "vLLM runs it with priority 0, whatever it says: that class must be allowed"
    OPERATOR = "changes or stops the server, or is not known here"


_LISTED = {
    # The status page itself holds nothing; what it shows it has to ask for.
    Door.OPEN: "/health /ping /metrics /version /load /docs /redoc /openapi.json /qllm /qllm/",
    Door.TENANT: "/v1/models /tokenize /detokenize /v1/messages/count_tokens",
    Door.CLASS: "/v1/chat/completions /v1/chat/completions/batch /v1/completions /v1/responses "
    "/v1/messages /cohere/v2/chat /inference/v1/generate /invocations",
    Door.URGENT: "/generative_scoring /v1/systemone /v1/audio/transcriptions "
    "/v1/audio/translations /v1/realtime",
}
_DOORS = {path: door for door, paths in _LISTED.items() for path in paths.split()}
# The answer to a request of one's own, found by its id, which cannot be guessed.
_RESPONSES = "/v1/responses/"


def door_of(path: str) -> Door:
    """The kind of a path, without ``--root-path``."""
    if path in _DOORS:
        return _DOORS[path]
    return Door.TENANT if path.startswith(_RESPONSES) else Door.OPERATOR


def shown(path: str) -> str:
    """The path for a log: one that is not listed may hold anything."""
    if path in _DOORS:
        return path
    return f"{_RESPONSES}…" if path.startswith(_RESPONSES) else "(other)"
