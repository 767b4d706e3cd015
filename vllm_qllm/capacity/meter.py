# SPDX-License-Identifier: Apache-2.0
"""What a simulation counts, by class, over the window that matters."""

from __future__ import annotations

import math
from array import array
from collections import Counter

from vllm_qllm.capacity.request import Request


class Meter:
    """Latencies of requests sent inside ``window``, and tokens computed inside it.

    A prompt's tokens count when its first token comes; output tokens when they come, those of a
    run of steps spread evenly over it. Latencies are seconds, as the client sees them.

    Attributes:
        ttft, tpot, e2e: by class, one value for each request that ended; of requests with one
            token ``tpot`` is 0.
        response: by class, from a request's arrival in the engine to its first work.
        sent, done, refused: requests by class over the whole simulation.
        suspensions: of steps, by class of the step.
        preemptions: how often requests lost their KV blocks, by class.
        work: tokens computed inside the window, by class.
        emitted: output tokens over the whole simulation, by class.
    """

    def __init__(self, classes: int, window: tuple[float, float] = (0.0, math.inf)) -> None:
        self.window = window
        levels = range(classes)
        self.ttft = [array("d") for _ in levels]
        self.tpot = [array("d") for _ in levels]
        self.e2e = [array("d") for _ in levels]
        self.response = [array("d") for _ in levels]
        self.sent = [0] * classes
        self.done = [0] * classes
        self.refused = [0] * classes
        self.suspensions = [0] * classes
        self.preemptions = [0] * classes
        self.work = [0.0] * classes
        self.emitted = [0] * classes

    def inside(self, request: Request) -> bool:
        """Whether the request was sent inside the window."""
        return self.window[0] <= request.sent < self.window[1]

    def started(self, request: Request, now: float) -> None:
        """First work of a request begins."""
        if self.inside(request):
            self.response[request.level].append(now - request.arrived)

    def first_token(self, request: Request, now: float) -> None:
        """The first token of a request has come."""
        self.emitted[request.level] += 1
        if self.window[0] <= now < self.window[1]:
            self.work[request.level] += request.prompt + 1

    def tokens(self, rows: list[Request], steps: int, began: float, now: float) -> None:
        """``steps`` tokens of each of ``rows`` came between ``began`` and ``now``."""
        if not rows:
            return
        share = 1.0
        start, end = self.window
        if steps == 1:
            share = 1.0 if start <= now < end else 0.0
        elif began < start or now > end:
            overlap = min(now, end) - max(began, start)
            share = max(0.0, overlap) / (now - began)
        for level, count in Counter([r.level for r in rows]).items():
            self.emitted[level] += count * steps
            self.work[level] += count * steps * share

    def ended(self, request: Request, now: float) -> None:
        """A request has got its last token."""
        level = request.level
        self.done[level] += 1
        self.preemptions[level] += request.preemptions
        if self.inside(request):
            self.ttft[level].append(request.first - request.sent)
            self.e2e[level].append(now - request.sent)
            gaps = request.output - 1
            self.tpot[level].append((now - request.first) / gaps if gaps else 0.0)
