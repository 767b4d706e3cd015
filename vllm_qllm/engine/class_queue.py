# SPDX-License-Identifier: Apache-2.0
"""The waiting queue, one vLLM priority queue a class, with a limit on which classes are visible."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from vllm.v1.core.sched.request_queue import PriorityRequestQueue, RequestQueue
from vllm.v1.request import Request, RequestStatus


class ClassQueue(RequestQueue):
    """Requests by class, preempted ones first, then vLLM's own order (priority, arrival, id).

    ``show()`` says what a step may take: the scheduler loop of vLLM looks at the truth
    value, ``peek`` and ``pop``, which see only the shown classes; length and iteration cover
    everything, because vLLM's counts must.
    """

    def __init__(self, level_of: Callable[[Request], int], num_classes: int) -> None:
        self._level_of = level_of
        # Two a class: the preempted requests, then the others.
        self._queues = [PriorityRequestQueue() for _ in range(2 * num_classes)]
        self._shown = self._queues

    def show(self, level: int | None = None) -> None:
        """Make visible class ``level`` only, or with None all classes."""
        self._shown = self._queues if level is None else self._pair(level)

    def _pair(self, level: int) -> list[PriorityRequestQueue]:
        return self._queues[2 * level : 2 * level + 2]

    def _of(self, request: Request) -> PriorityRequestQueue:
        preempted = request.status == RequestStatus.PREEMPTED
        return self._queues[2 * self._level_of(request) + (not preempted)]

    def _first(self) -> PriorityRequestQueue:
        for queue in self._shown:
            if queue:
                return queue
        raise IndexError("no visible request in the queue")

    def add_request(self, request: Request) -> None:
        """Add to the queue of the request's class."""
        self._of(request).add_request(request)

    def pop_request(self) -> Request:
        """Remove and return the first visible request; IndexError when there is none."""
        return self._first().pop_request()

    def peek_request(self) -> Request:
        """Return the first visible request; IndexError when there is none."""
        return self._first().peek_request()

    def prepend_request(self, request: Request) -> None:
        """Add: the order within a class is by priority and arrival, there is no front."""
        self.add_request(request)

    def prepend_requests(self, requests: Iterable[Request]) -> None:
        """Add each of ``requests``, as :meth:`prepend_request`."""
        for request in requests:
            self.add_request(request)

    def remove_request(self, request: Request) -> None:
        """Remove one request; ValueError when it is not queued."""
        preempted, others = self._pair(self._level_of(request))
        try:  # its status may have changed since it was added
            preempted.remove_request(request)
        except ValueError:
            others.remove_request(request)

    def remove_requests(self, requests: Iterable[Request]) -> None:
        """Remove those of ``requests`` that are queued."""
        doomed = set(requests)
        for queue in self._queues:
            queue.remove_requests(doomed)

    def first(self, level: int) -> Request | None:
        """The request of class ``level`` that is next, visible or not."""
        return next((queue.peek_request() for queue in self._pair(level) if queue), None)

    def of(self, level: int) -> Iterator[Request]:
        """The requests of class ``level`` in order, visible or not."""
        for queue in self._pair(level):
            yield from queue

    def count(self, level: int) -> int:
        """Number of queued requests of class ``level``, visible or not."""
        return sum(map(len, self._pair(level)))

    def __bool__(self) -> bool:
        return any(self._shown)

    def __len__(self) -> int:
        return sum(map(len, self._queues))

    def __iter__(self) -> Iterator[Request]:
        for queue in self._queues:
            yield from queue
