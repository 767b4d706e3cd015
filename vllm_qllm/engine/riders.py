# SPDX-License-Identifier: Apache-2.0
"""Less urgent decodes that a step of urgent requests takes along."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from vllm.v1.request import Request

from vllm_qllm.policy import EngineView, Run

if TYPE_CHECKING:
    from vllm_qllm.engine.scheduler import PriorityScheduler


class Riders:
    """Which requests ride, and how many, in the steps of one scheduler."""

    def __init__(self, scheduler: PriorityScheduler) -> None:
        self._scheduler = scheduler

    def limit(self, view: EngineView) -> int:
        """How many may ride with the first of the classes that are ready.

        So many that they are expected to make its step at most ``ride_slowdown`` times slower.
        """
        scheduler = self._scheduler
        leader = view.ready[0]
        candidates = sum(c.decoding for c in view.classes[leader.rank + 1 :])
        slowdown = scheduler.priority_config.ride_slowdown
        if not candidates:
            return 0
        if leader.waiting or leader.prefilling:
            # A prefill's time goes with its tokens, and each rider adds one. A rider must not
            # push prompt tokens out of the step.
            tokens = scheduler.load.prompt_tokens(leader.rank)
            room = scheduler.max_num_scheduled_tokens - tokens
            return min(candidates, room, int(tokens * (slowdown - 1.0)))
        return scheduler.decode_cost.riders(leader.decoding, candidates, slowdown)

    def choose(self, plan: Run, leading: list[Request], candidates: list[Request]) -> list[Request]:
        """Those of ``candidates`` that leave the leading class its slots and its blocks.

        vLLM schedules them before it admits anybody, and their blocks are not to be taken.
        """
        if not candidates:
            return []
        scheduler = self._scheduler
        most = scheduler.max_num_running_reqs
        queued = itertools.chain(
            scheduler.kv_holding_waiting.of(plan.rank), scheduler.waiting.of(plan.rank)
        )
        first = leading + list(itertools.islice(queued, max(0, most - len(leading))))
        # Those that have come furthest ride first: they finish soonest and give blocks back.
        candidates = sorted(candidates, key=lambda r: (scheduler.rank(r), -r.num_output_tokens))
        fitting = scheduler.kv_guard.fitting_beside(first, candidates)
        return fitting[: min(plan.riders, max(0, most - len(first)))]
