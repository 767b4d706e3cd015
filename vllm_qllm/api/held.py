# SPDX-License-Identifier: Apache-2.0
"""A request keeps the priority that it was given, whatever vLLM does with it on the way.

vLLM 0.32.0 runs the later turns of a response with a built-in tool one priority more urgent, and a
beam search with priority 0. The handler that works for a request is therefore a copy of its own,
whose way to the engine carries that priority and no other.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

# The methods of an engine's client that take a priority.
METHODS = ("generate", "encode", "add_request")


class HeldClient:
    """An engine's client for one request.

    Args:
        client: an ``AsyncLLM``.
        priority: of everything that the engine is asked for.
    """

    def __init__(self, client: Any, priority: int) -> None:
        self._client, self._priority = client, priority

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        return functools.partial(self._ask, found) if name in METHODS else found

    def _ask(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return method(*args, **kwargs | {"priority": self._priority})


def held(handler: Any, priority: int) -> Any:
    """A handler for one request of this priority; what it stores is stored in ``handler``'s."""
    own = copy.copy(handler)
    own.engine_client = HeldClient(handler.engine_client, priority)
    own._get_priority = lambda request, raw_request=None: priority
    return own
