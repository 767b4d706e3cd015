# SPDX-License-Identifier: Apache-2.0
"""Which route of the application a request goes to: the application's own routes are asked.

A path can be spelled in many ways, with a prefix that some server in front has added, twice
encoded, with dots or slashes too many. Only what the router itself makes of it counts.
"""

from __future__ import annotations

from typing import Any

from starlette.routing import Match
from starlette.types import Scope

# In place of the method.
WEBSOCKET = "WEBSOCKET"
# A route of that path is there, and does not take the method: the answer is 405.
OTHER_METHOD = "OTHER"
# Of an application that takes all that begins with a path, which may be anything.
BELOW = "BELOW"


def route_of(scope: Scope) -> str:
    """The route as method and template, such as ``GET /v1/responses/{response_id}``.

    Args:
        scope: of a connection, as the outermost middleware of a FastAPI application gets it.

    Returns:
        "" when no route takes it.
    """
    found = ""
    for route in scope["app"].router.routes:
        match, _ = route.matches(scope)
        if match is Match.FULL:
            return _named(route, scope)
        if match is Match.PARTIAL and not found:
            found = f"{OTHER_METHOD} {route.path}"
    return found


def is_served(route: str) -> bool:
    """Whether the application runs anything for a route that :func:`route_of` has named."""
    return route != "" and not route.startswith(f"{OTHER_METHOD} ")


def path_of(route: str) -> str:
    """The template of a route that :func:`route_of` has named."""
    return route.partition(" ")[2]


def _named(route: Any, scope: Scope) -> str:
    template = getattr(route, "path", "")  # a route of a host has none
    if scope["type"] == "websocket":
        return f"{WEBSOCKET} {template}"
    prefix = scope.get("root_path", "").rstrip("/")
    if getattr(route, "methods", None) is None and scope["path"] not in (
        template,
        prefix + template,
    ):
        return f"{BELOW} {template}"
    method = scope["method"]
    return f"{'GET' if method == 'HEAD' else method} {template}"
