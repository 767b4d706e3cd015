# SPDX-License-Identifier: Apache-2.0
"""Replicas behind a router, from the first arrival to the last token."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable

from vllm_qllm.capacity.cost import Cost
from vllm_qllm.capacity.errors import check
from vllm_qllm.capacity.meter import Meter
from vllm_qllm.capacity.replica import Replica
from vllm_qllm.capacity.request import Request
from vllm_qllm.capacity.router import router
from vllm_qllm.capacity.server import Server
from vllm_qllm.capacity.workload import Clients, Workload


class Fleet:
    """Simulates ``replicas`` like servers. One object, one run.

    Args:
        server: what each replica is.
        cost: how long its steps take.
        replicas: how many there are.
        routing: ``round_robin``, ``least_outstanding`` or ``class_aware``.
        window: requests sent inside it count in the latencies.
        seed: of the noise of steps; equal seeds give equal results.
        ended: called with each request that ends and when.
    """

    def __init__(
        self,
        server: Server,
        cost: Cost,
        replicas: int = 1,
        routing: str = "least_outstanding",
        window: tuple[float, float] = (0.0, math.inf),
        seed: int = 0,
        ended: Callable[[Request, float], None] | None = None,
    ) -> None:
        check(
            isinstance(replicas, int) and 1 <= replicas <= 100_000,
            "replicas",
            replicas,
            "an integer from 1 to 100000",
        )
        classes = len(server.priority.classes)
        self.meter = Meter(classes, window)
        self._server, self._cost = server, cost
        self._router = router(routing, replicas, classes)
        table = cost.table(server.token_budget)
        self._replicas = [
            Replica(server, cost, self.meter, self._ended, f"{seed} {i}", table)
            for i in range(replicas)
        ]
        self._report = ended
        self._current = 0
        self._number = 0
        # What closed loops send, until it arrives.
        self._under_way: list[tuple[float, int, Request]] = []
        self._clients: list[tuple[Clients, int]] = []
        self._until = 0.0

    def run(self, workload: Workload) -> Meter:
        """Simulate until every request has ended."""
        self._until = workload.seconds
        for clients in workload.clients:
            for i in range(clients.number):
                self._clients.append((clients, i))
                self._send_next(len(self._clients) - 1, 0.0)
        overhead = self._cost.overhead_s
        events: list[tuple[float, int]] = []
        pending = iter(workload.arrivals)
        following = next(pending, None)
        under_way, replicas = self._under_way, self._replicas
        while True:
            due = following[0] + overhead if following else math.inf
            looped = under_way[0][0] if under_way else math.inf
            event = events[0][0] if events else math.inf
            if event <= due and event <= looped:
                if math.isinf(event):
                    return self.meter
                at, index = heapq.heappop(events)
                replica = replicas[index]
                if replica.next_event != at:
                    continue  # something else happened meanwhile
                self._current = index
                replica.event()
            else:
                if due <= looped:
                    assert following is not None
                    sent, level, prompt, output = following
                    request = self._request(level, sent, prompt, output)
                    following, at = next(pending, None), due
                else:
                    at, _, request = heapq.heappop(under_way)
                if not self._fits(request):
                    self.meter.refused[request.level] += 1
                    continue
                index = self._current = self._router.pick(request.level)
                replica = replicas[index]
                before = replica.next_event
                self._router.came(index, request.level)
                replica.arrive(request, at)
                if replica.next_event == before:
                    continue
            if replica.next_event < math.inf:
                heapq.heappush(events, (replica.next_event, index))

    def _request(
        self, level: int, sent: float, prompt: int, output: int, client: int = -1
    ) -> Request:
        self._number += 1
        self.meter.sent[level] += 1
        return Request(self._number, level, sent, prompt, output, client)

    def _fits(self, request: Request) -> bool:
        server = self._server
        tokens = request.prompt + request.output
        return tokens <= min(server.max_model_len, server.kv_blocks * server.block_size)

    def _send_next(self, client: int, now: float) -> None:
        if now < self._until:
            loop, turn = self._clients[client]
            self._clients[client] = (loop, turn + loop.number)
            prompt, output = loop.lengths[turn % len(loop.lengths)]
            request = self._request(loop.level, now, prompt, output, client)
            at = now + self._cost.overhead_s
            heapq.heappush(self._under_way, (at, request.number, request))

    def _ended(self, request: Request, now: float) -> None:
        self.meter.ended(request, now)
        if self._report is not None:
            self._report(request, now)
        self._router.went(self._current, request.level)
        if request.client >= 0:
            loop, _ = self._clients[request.client]
            self._send_next(request.client, now + loop.pause)
