# SPDX-License-Identifier: Apache-2.0
"""KV blocks under classes: who finds some, beside the reserve and from whom."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vllm.v1.core.kv_cache_manager import KVCacheBlocks
from vllm.v1.request import Request, RequestStatus

from vllm_qllm.engine.abandonment import Abandonment
from vllm_qllm.engine.blocks import Blocks
from vllm_qllm.engine.programs import Programs
from vllm_qllm.engine.requests import Requests
from vllm_qllm.engine.victims import Victims


class KVGuard:
    """Stands in front of ``KVCacheManager.allocate_slots`` of one scheduler.

    vLLM gives up on a waiting request when no block is free, whoever holds them. Here the
    request takes blocks from held-back requests of strictly less urgent classes; and the less
    urgent classes leave a reserve, so that a nested step finds blocks while the suspended step,
    whose blocks can only be had by giving it up, holds many.

    Args:
        reserved: ``reserved_kv``, the fraction of the pool that is the reserve.
        requests, blocks, victims, programs, abandonment: of the scheduler.
        owed: seconds of the machine that a class is to be given now.
    """

    def __init__(
        self,
        reserved: float,
        requests: Requests,
        blocks: Blocks,
        victims: Victims,
        programs: Programs,
        abandonment: Abandonment,
        owed: Callable[[int], float],
    ) -> None:
        self._requests = requests
        self._blocks = blocks
        self._victims = victims
        self._programs = programs
        self._abandonment = abandonment
        self._owed = owed
        self._manager = manager = blocks.manager
        self._reserve = int(reserved * manager.kv_cache_config.num_blocks)
        self._allocate = manager.allocate_slots
        manager.allocate_slots = self.allocate_slots  # type: ignore[method-assign]

    def allocate_slots(
        self, request: Request, num_new_tokens: int, *args: Any, **kwargs: Any
    ) -> KVCacheBlocks | None:
        """vLLM's ``allocate_slots`` by class: same arguments, same result."""
        self._abandonment.note(request, False)
        blocks = self._try(request, num_new_tokens, *args, **kwargs)
        if blocks is not None:
            return blocks
        level, programs = self._requests.level(request), self._programs
        hits = kwargs.get("new_computed_blocks")
        missing = self._blocks.missing(request, num_new_tokens, hits)
        kept = programs.yielding(level, self._nobody_to_wait_for(request))
        kept_blocks = programs.blocks(kept)
        victims = self._victims.of(level)
        if self._leaves_reserve(request, without=len(victims)):
            missing += self._reserve
        suspended = self._abandonment.victims(level)
        if self._blocks.gain(victims, kept_blocks, hits) < missing:
            gain = self._blocks.gain(victims + suspended, kept_blocks, hits)
            self._abandonment.note(request, gain >= missing)
            return None
        for program in kept:
            programs.release(program)
            blocks = self._try(request, num_new_tokens, *args, **kwargs)
            if blocks is not None:
                return blocks
        for victim in victims:
            self._requests.preempt_held(victim)
            blocks = self._try(request, num_new_tokens, *args, **kwargs)
            if blocks is not None:
                return blocks
        # More than was missing has been given back, and it did not do: vLLM wants a margin for
        # who is let in, and with several groups of blocks only trying tells what is missing.
        self._abandonment.note(request, bool(suspended))
        return None

    def _try(
        self, request: Request, num_new_tokens: int, *args: Any, **kwargs: Any
    ) -> KVCacheBlocks | None:
        """Allocate free blocks, beside the reserve if the request has to leave one.

        Who needs no block takes nothing of it, however much of it is in use.
        """
        after = request.num_computed_tokens + num_new_tokens
        grows = request.status != RequestStatus.RUNNING
        grows = grows or self._blocks.beyond_held(request, after) > 0
        beside = grows and self._leaves_reserve(request)
        allocate = self._allocate_beside_reserve if beside else self._allocate
        return allocate(request, num_new_tokens, *args, **kwargs)

    def _allocate_beside_reserve(
        self, request: Request, *args: Any, **kwargs: Any
    ) -> KVCacheBlocks | None:
        manager = self._manager
        if request.status == RequestStatus.RUNNING:
            kwargs["reserved_blocks"] = kwargs.get("reserved_blocks", 0) + self._reserve
            blocks = self._allocate(request, *args, **kwargs)
        else:
            # vLLM admits a request when its whole sequence fits beside the watermark, and does
            # not look at reserved_blocks there: what is admitted must also fit beside the reserve.
            watermark = manager.watermark_blocks
            manager.watermark_blocks = watermark + self._reserve
            try:
                blocks = self._allocate(request, *args, **(kwargs | {"has_scheduled_reqs": True}))
            finally:
                manager.watermark_blocks = watermark
        return blocks

    def _nobody_to_wait_for(self, request: Request) -> bool:
        """Whether no end of an admitted request, as urgent at least, would make room."""
        level = self._requests.level
        return request.status == RequestStatus.RUNNING or not any(
            level(r) <= level(request) for r in (*self._requests.running, *self._requests.held_back)
        )

    def room_beside(self, first: list[Request]) -> int | None:
        """Blocks left for others once all of ``first``, of one class, have theirs.

        None when ``first`` is empty or does not fit itself.
        """
        if not first:
            return None
        free = self._blocks.free - sum(map(self._blocks.growth, first))
        if any(r.status != RequestStatus.RUNNING for r in first):
            free -= self._manager.watermark_blocks
        room = free - self._reserve
        if (room if self._requests.level(first[0]) else free) < 0:
            return None
        return max(room, 0)

    def _leaves_reserve(self, request: Request, without: int = 0) -> bool:
        """Whether the reserve is not for ``request``, with so many others ``without`` blocks."""
        # The only admitted request may use the reserve: it must be able to finish.
        level = self._requests.level(request)
        if not self._reserve or level == 0:
            return False
        running = self._requests.running
        admitted = len(running) + len(self._requests.held) - without
        if admitted <= (request in running):
            return False
        # Nor can it wait for ever to be the only one, where it fits in no other way.
        return not self._owed(level) or self._could_fit_beside_reserve(request)

    def _could_fit_beside_reserve(self, request: Request) -> bool:
        """Whether ``request`` finds room if all that are no more urgent give up theirs."""
        blocks, level = self._blocks, self._requests.level
        more_urgent = (r for r in self._requests.admitted if level(r) < level(request))
        # One block is vLLM's own.
        left = self._manager.kv_cache_config.num_blocks - 1
        left -= len({b for r in (request, *more_urgent) for b in blocks.ids(r)})
        needed = blocks.beyond_held(request, request.num_tokens)
        return needed + self._manager.watermark_blocks + self._reserve <= left
