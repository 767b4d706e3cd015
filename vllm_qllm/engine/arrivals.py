# SPDX-License-Identifier: Apache-2.0
"""Notices urgent requests and calls as EngineCore's IO thread puts them into its input queue."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable

from vllm.v1.engine import EngineCoreRequestType
from vllm.v1.request import Request

from vllm_qllm.engine.calls import Item, is_call


class Arrivals:
    """Watches a ``queue.Queue`` that is already in use.

    ``pending`` counts the added requests of each class that the engine has not taken yet, and
    ``calls`` the calls of clients, so that a step which starts just after an arrival can tell that
    it must not run on. ``_put`` and ``_get`` are what ``queue.Queue`` calls, under its lock, to
    store and fetch an item; replacing them on the live object loses no item, which replacing the
    object could.

    Args:
        input_queue: of ``(EngineCoreRequestType, payload)``; the IO thread puts, the engine gets.
        num_classes: number of priority classes.
        level: class of a request.
        on_arrival: called, on the IO thread, with the class of each added request.
        on_other: called, on the IO thread, with each item that adds no request.
    """

    def __init__(
        self,
        input_queue: queue.Queue[Item],
        num_classes: int,
        level: Callable[[Request], int],
        on_arrival: Callable[[int], None],
        on_other: Callable[[Item], None] = lambda item: None,
    ) -> None:
        self.queue = input_queue
        self.pending = [0] * num_classes
        self.calls = 0
        self._level = level
        self._on_arrival = on_arrival
        self._on_other = on_other
        self._store, self._fetch = input_queue._put, input_queue._get
        with input_queue.mutex:
            for item in input_queue.queue:
                level_of_item = self._level_of(item)
                self.calls += is_call(item)
                if level_of_item is not None:
                    self.pending[level_of_item] += 1
            input_queue._put, input_queue._get = self._put, self._get  # type: ignore[method-assign]

    def _level_of(self, item: Item) -> int | None:
        return self._level(item[1][0]) if item[0] == EngineCoreRequestType.ADD else None

    def first(self) -> Item | None:
        """The item that the engine would get next, which stays; None if there is none."""
        with self.queue.mutex:
            return self.queue.queue[0] if self.queue.queue else None

    def _put(self, item: Item) -> None:
        level = self._level_of(item)
        if level is None:
            self._store(item)
            self.calls += is_call(item)
            self._on_other(item)
            return
        item[1][0].priority_arrived = time.monotonic()
        self._store(item)
        self.pending[level] += 1
        self._on_arrival(level)

    def _get(self) -> Item:
        item = self._fetch()
        level = self._level_of(item)
        self.calls -= is_call(item)
        if level is not None:
            self.pending[level] -= 1
        return item
