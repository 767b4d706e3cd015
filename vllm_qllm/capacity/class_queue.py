# SPDX-License-Identifier: Apache-2.0
"""The waiting requests of one class, preempted ones first, then by arrival."""

from __future__ import annotations

import itertools
from collections import deque

from vllm_qllm.capacity.request import Request
from vllm_qllm.capacity.scheduler import Heap


class ClassQueue:
    """Order within a class is by arrival; new requests arrive in that order already."""

    __slots__ = ("_new", "_preempted")

    def __init__(self) -> None:
        self._preempted = Heap()
        self._new: deque[Request] = deque()

    def push(self, request: Request) -> None:
        """Add a request that has arrived, or one that has lost its blocks."""
        if request.preemptions:
            self._preempted.push(request, request.arrived)
        else:
            self._new.append(request)

    def __len__(self) -> int:
        return len(self._new) + len(self._preempted)

    def __bool__(self) -> bool:
        return bool(self._new or self._preempted)

    def peek(self) -> Request:
        """The first one."""
        return self._preempted.peek() if self._preempted else self._new[0]

    def first(self, most: int) -> list[Request]:
        """The first ones, at most ``most``."""
        preempted = self._preempted.first(most)
        return preempted + list(itertools.islice(self._new, max(0, most - len(preempted))))

    def pop(self) -> Request:
        """Remove and return the first one."""
        return self._preempted.pop() if self._preempted else self._new.popleft()
