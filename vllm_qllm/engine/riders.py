# SPDX-License-Identifier: Apache-2.0
"""Less urgent decodes that a step of urgent requests takes along."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm.v1.request import Request

from vllm_qllm.engine.step_room import StepRoom
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
        candidates = sum(c.decoding for c in view.classes[leader.level + 1 :])
        slowdown = scheduler.priority_config.ride_slowdown
        if not candidates:
            return 0
        if leader.waiting or leader.prefilling:
            # A prefill's time goes with its tokens, and each rider adds one, or as many as are
            # speculated. A rider must not push prompt tokens out of the step.
            tokens = scheduler.load.prompt_tokens(leader.level)
            room = scheduler.max_num_scheduled_tokens - tokens
            each = 1 + scheduler.num_spec_tokens
            return min(candidates, room // each, int(tokens * (slowdown - 1.0) / each))
        return scheduler.decode_cost.riders(leader.decoding, candidates, slowdown)

    def choose(
        self, plan: Run, leading: list[Request], candidates: list[Request], room: StepRoom
    ) -> list[Request]:
        """Those of ``candidates`` that leave the leading class all that it could use.

        vLLM schedules them before it admits anybody, and what they hold is not to be taken: rows,
        tokens, LoRA adapters and blocks.

        Args:
            plan: of the step.
            leading: the admitted requests that it is for, which have taken their part of ``room``.
            candidates: decodes of less urgent classes.
            room: of the step.
        """
        if not candidates:
            return []
        scheduler = self._scheduler
        first = leading + room.wait_for()
        if not any(map(room.is_certain, first)):
            return []  # a step of riders alone would be one of their class
        blocks = scheduler.kv_guard.room_beside(first)
        if blocks is None:
            return []
        # Those that have come furthest ride first: they finish soonest and give blocks back.
        candidates = sorted(
            candidates,
            key=lambda r: (scheduler.level(r), -r.num_output_tokens, r.arrival_time),
        )
        riders: list[Request] = []
        for request in candidates:
            if len(riders) == plan.riders:
                break
            growth = scheduler.kv_guard.growth(request)
            if growth <= blocks and room.take(request):
                blocks -= growth
                riders.append(request)
        return riders
