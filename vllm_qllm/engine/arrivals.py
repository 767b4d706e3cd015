# SPDX-License-Identifier: Apache-2.0
"""EngineCore's input queue, which notices urgent requests the moment they are put in."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from typing import Any

from vllm.v1.engine import EngineCoreRequestType
from vllm.v1.request import Request


class ArrivalQueue(queue.Queue):  # type: ignore[type-arg]
    """A ``queue.Queue`` of ``(EngineCoreRequestType, payload)``.

    The IO thread puts, the engine thread gets. ``pending`` counts the added requests of each
    class that the engine has not taken yet, so that a step which starts just after an arrival
    can tell that it must not run on.

    Args:
        num_classes: number of priority classes.
        rank: class of a request.
        on_arrival: called, on the IO thread, with the class of each added request.
    """

    def __init__(
        self, num_classes: int, rank: Callable[[Request], int], on_arrival: Callable[[int], None]
    ) -> None:
        super().__init__()
        self.pending = [0] * num_classes
        self._rank = rank
        self._on_arrival = on_arrival

    def _put(self, item: tuple[EngineCoreRequestType, Any]) -> None:
        super()._put(item)
        if item[0] == EngineCoreRequestType.ADD:
            request = item[1][0]
            request.priority_arrived = time.monotonic()
            rank = self._rank(request)
            self.pending[rank] += 1
            self._on_arrival(rank)

    def _get(self) -> tuple[EngineCoreRequestType, Any]:
        item: tuple[EngineCoreRequestType, Any] = super()._get()
        if item[0] == EngineCoreRequestType.ADD:
            self.pending[self._rank(item[1][0])] -= 1
        return item
