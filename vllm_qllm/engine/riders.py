# SPDX-License-Identifier: Apache-2.0
"""Less urgent decodes that a step of urgent requests takes along."""

from __future__ import annotations

from collections.abc import Callable

from vllm.v1.request import Request

from vllm_qllm.engine.blocks import Blocks
from vllm_qllm.engine.census import Census
from vllm_qllm.engine.decode_cost import DecodeCost
from vllm_qllm.engine.kv_guard import KVGuard
from vllm_qllm.engine.requests import Requests
from vllm_qllm.engine.step_room import StepRoom
from vllm_qllm.policy import EngineView, Run
from vllm_qllm.policy.rules import riders_beside_prompts


class Riders:
    """Which requests ride, and how many, in the steps of one scheduler.

    Args:
        slowdown: ``ride_slowdown``.
        budget: tokens of a step.
        drafts: tokens that are speculated for a decode.
        requests, census, blocks, kv_guard, decode_cost: of the scheduler.
        on_host: tokens of a waiting request that need not be computed, by its id.
    """

    def __init__(
        self,
        slowdown: float,
        budget: int,
        drafts: int,
        requests: Requests,
        census: Census,
        blocks: Blocks,
        kv_guard: KVGuard,
        decode_cost: DecodeCost,
        on_host: Callable[[str], int],
    ) -> None:
        self._slowdown = slowdown
        self._budget = budget
        self._each = 1 + drafts
        self._requests = requests
        self._census = census
        self._blocks = blocks
        self._kv_guard = kv_guard
        self._decode_cost = decode_cost
        self._on_host = on_host

    def limit(self, view: EngineView) -> int:
        """How many may ride with the first of the classes that are ready.

        So many that they are expected to make its step at most ``ride_slowdown`` times slower.
        """
        leader = view.ready[0]
        candidates = sum(c.decoding for c in view.classes[leader.level + 1 :])
        if not candidates:
            return 0
        if leader.waiting or leader.prefilling:
            tokens = self._prompt_tokens(leader.level)
            return riders_beside_prompts(
                tokens, self._budget, candidates, self._slowdown, self._each
            )
        return self._decode_cost.riders(leader.decoding, candidates, self._slowdown)

    def _prompt_tokens(self, level: int) -> int:
        """Prompt tokens that the next step of class ``level`` has at least to compute.

        Those of its admitted requests and of the first waiting one, within the token budget;
        cached prefixes are not looked up, so it may be less.
        """
        tokens = self._census.take()[level].prompt_tokens
        first = self._requests.next_prompt(level)
        if first is not None:
            tokens += first.num_tokens - self._on_host(first.request_id)
        return min(tokens, self._budget)

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
        first = leading + room.wait_for()
        if not any(map(room.is_certain, first)):
            return []  # a step of riders alone would be one of their class
        blocks = self._kv_guard.room_beside(first)
        if blocks is None:
            return []
        # Those that have come furthest ride first: they finish soonest and give blocks back.
        level = self._requests.level
        candidates = sorted(
            candidates, key=lambda r: (level(r), -r.num_output_tokens, r.arrival_time)
        )
        riders: list[Request] = []
        for request in candidates:
            if len(riders) == plan.riders:
                break
            growth = self._blocks.growth(request)
            if growth <= blocks and room.take(request):
                blocks -= growth
                riders.append(request)
        return riders
