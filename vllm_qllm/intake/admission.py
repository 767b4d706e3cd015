# SPDX-License-Identifier: Apache-2.0
"""Less urgent requests go to the engine one after the other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from vllm_qllm.intake.passage import is_less_urgent, passage
from vllm_qllm.intake.turns import Turns


class Admission:
    """Replaces a method of an engine's client, on that object.

    To check a grammar and to make a request for each of ``n`` sequences takes the event loop.

    Args:
        client: an ``AsyncLLM``.
    """

    def __init__(self, client: Any) -> None:
        self._add: Callable[..., Awaitable[Any]] = client.add_request
        self._turns = Turns()
        client.add_request = self.add_request

    async def add_request(self, *args: Any, **kwargs: Any) -> Any:
        """As ``AsyncLLM.add_request``, when it is its turn."""
        served = passage.get()
        if served is not None:
            served.was_read()
        if not is_less_urgent():
            return await self._add(*args, **kwargs)
        turn = await self._turns.take()
        try:
            return await self._add(*args, **kwargs)
        finally:
            turn.give_back()
