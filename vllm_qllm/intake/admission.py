# SPDX-License-Identifier: Apache-2.0
"""Less urgent requests go to the engine one after the other."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from vllm_qllm.intake.passage import passage
from vllm_qllm.intake.stepwise import stepwise
from vllm_qllm.intake.turns import Turns


class Admission:
    """Replaces a method of an engine's client, on that object.

    To check a grammar and to make a request for each of ``n`` sequences takes the event loop. Here
    at the latest the class of a request is known, whichever handler serves it.

    Args:
        client: an ``AsyncLLM``.
    """

    def __init__(self, client: Any) -> None:
        self._add: Callable[..., Awaitable[Any]] = client.add_request
        self._signature = inspect.signature(self._add)
        self._turns = Turns()
        client.add_request = self.add_request

    async def add_request(self, *args: Any, **kwargs: Any) -> Any:
        """As ``AsyncLLM.add_request``, when it is its turn."""
        served = passage.get()
        if served is None:
            return await self._add(*args, **kwargs)
        served.was_read()
        call = self._signature.bind(*args, **kwargs)
        served.classed(served.limits.config.level(call.arguments.get("priority", 0)))
        if served.level == 0:
            return await self._add(*args, **kwargs)
        turn = await self._turns.take(served.level)
        try:
            return await stepwise(self._add(*args, **kwargs), turn)
        finally:
            turn.give_back()
