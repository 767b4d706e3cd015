# SPDX-License-Identifier: Apache-2.0
"""Whose KV blocks more urgent work may take, and how often each request has lost work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from vllm.v1.request import Request, RequestStatus

from vllm_qllm.config import PriorityConfig
from vllm_qllm.engine.blocks import Blocks
from vllm_qllm.engine.requests import Requests
from vllm_qllm.policy.rules import victim_order


class Victims:
    """Chooses among held-back requests, for one scheduler.

    Args:
        config: ``max_preemptions``, ``progress_cap`` and ``park_fraction``.
        requests: of the scheduler.
        blocks: of the scheduler.
        price: seconds that taking a block of a request costs, for each block that this frees.
    """

    def __init__(
        self,
        config: PriorityConfig,
        requests: Requests,
        blocks: Blocks,
        price: Callable[[Request], float],
    ) -> None:
        self._config = config
        self._requests = requests
        self._blocks = blocks
        self._price = price
        self._parked_blocks = int(config.park_fraction * blocks.total)
        # How often each request was preempted although nobody needed its blocks, and how often
        # a step of it was given up.
        self._trimmed: Counter[str] = Counter()
        self._abandoned: Counter[str] = Counter()

    def of(self, level: int) -> list[Request]:
        """Held-back requests whose blocks class ``level`` may take, first to go first."""
        victims = [
            r
            for r in self._requests.held_back
            if r.status == RequestStatus.RUNNING
            and self._requests.level(r) > level
            and self.may_lose_blocks(r)
        ]
        return sorted(victims, key=self._order)

    def _order(self, request: Request) -> tuple[bool, int, float, float]:
        return victim_order(
            self._requests.level(request),
            request.num_output_tokens,
            self._config.progress_cap * request.max_tokens,
            self._price(request),
            request.arrival_time,
        )

    def trim(self, level: int) -> None:
        """Preempt requests held back by a step of class ``level`` beyond what may be parked.

        It is not their KV that somebody needs: ``max_preemptions`` does not count it.
        """
        if self._parked_blocks >= self._blocks.total:
            return
        held = sum(map(self._blocks.count, self._requests.held_back))
        if held <= self._parked_blocks:
            return
        for victim in self.of(level):
            held -= self._blocks.count(victim)
            self._trimmed[victim.request_id] += 1
            self._requests.preempt_held(victim)
            if held <= self._parked_blocks:
                return

    # -- how often each has lost ---------------------------------------------------------------

    def may_lose_blocks(self, request: Request) -> bool:
        """Whether a request may lose its KV blocks to more urgent ones once more."""
        lost = request.num_preemptions - self._trimmed[request.request_id]
        return lost < self._config.max_preemptions

    def may_lose_step(self, request: Request) -> bool:
        """Whether a request may lose the work of one more step, and then its blocks."""
        given_up = self._abandoned[request.request_id]
        return self.may_lose_blocks(request) and given_up < self._config.max_preemptions

    def lost_step(self, request_id: str) -> None:
        """Note that a step of this request is given up."""
        self._abandoned[request_id] += 1

    def finished(self, request: Request) -> None:
        """Forget a request."""
        self._trimmed.pop(request.request_id, None)
        self._abandoned.pop(request.request_id, None)
