# SPDX-License-Identifier: Apache-2.0
"""KV blocks under classes: room for urgent work, and no hit on half-written blocks."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING, Any

from vllm.utils.math_utils import cdiv
from vllm.v1.core.kv_cache_manager import KVCacheBlocks
from vllm.v1.kv_cache_interface import FullAttentionSpec
from vllm.v1.request import Request, RequestStatus

if TYPE_CHECKING:
    from vllm_qllm.engine.scheduler import PriorityScheduler


class KVGuard:
    """Stands in front of ``KVCacheManager.allocate_slots`` of one scheduler.

    vLLM gives up on a waiting request when no block is free, whoever holds them. Here the
    request takes blocks from held-back requests of strictly less urgent classes; and the less
    urgent classes leave a reserve, so that a nested step finds blocks while the suspended step,
    whose blocks can only be had by giving it up, holds many.
    """

    def __init__(self, scheduler: PriorityScheduler) -> None:
        self._scheduler = scheduler
        manager = scheduler.kv_cache_manager
        self._manager = manager
        self._allocate = manager.allocate_slots
        self._reserve = int(
            scheduler.priority_config.reserved_kv * manager.kv_cache_config.num_blocks
        )
        manager.allocate_slots = self.allocate_slots  # type: ignore[method-assign]

    def allocate_slots(
        self, request: Request, num_new_tokens: int, *args: Any, **kwargs: Any
    ) -> KVCacheBlocks | None:
        """vLLM's ``allocate_slots`` by class: same arguments, same result."""
        abandonment = self._scheduler.abandonment
        abandonment.note(request, False)
        blocks = self._try(request, num_new_tokens, *args, **kwargs)
        if blocks is not None:
            return blocks
        level = self._scheduler.level(request)
        programs = self._scheduler.programs
        hits = kwargs.get("new_computed_blocks")
        missing = self._missing(request, num_new_tokens, hits)
        kept = programs.yielding(level, self._nobody_to_wait_for(request))
        victims = self._scheduler.held_victims(level)
        if self._leaves_reserve(request, without=len(victims)):
            missing += self._reserve
        suspended = abandonment.victims(level)
        if self._gain(victims, kept, hits) < missing:
            abandonment.note(request, self._gain(victims + suspended, kept, hits) >= missing)
            return None
        for program in kept:
            programs.release(program)
            blocks = self._try(request, num_new_tokens, *args, **kwargs)
            if blocks is not None:
                return blocks
        for victim in victims:
            self._scheduler.take_blocks(victim)
            blocks = self._try(request, num_new_tokens, *args, **kwargs)
            if blocks is not None:
                return blocks
        # More than was missing has been given back, and it did not do: vLLM wants a margin for
        # who is let in, and with several groups of blocks only trying tells what is missing.
        abandonment.note(request, bool(suspended))
        return None

    def _try(
        self, request: Request, num_new_tokens: int, *args: Any, **kwargs: Any
    ) -> KVCacheBlocks | None:
        """Allocate free blocks, beside the reserve if the request has to leave one.

        Who needs no block takes nothing of it, however much of it is in use.
        """
        after = request.num_computed_tokens + num_new_tokens
        grows = request.status != RequestStatus.RUNNING or self._beyond_held(request, after) > 0
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

    def _missing(self, request: Request, num_new_tokens: int, hits: KVCacheBlocks | None) -> int:
        """Blocks that ``request`` needs beyond the free ones; 0 when that cannot be told."""
        managers = self._manager.coordinator.single_type_managers
        if len(managers) != 1:
            return 0  # groups with windows of their own: only trying tells
        tokens = request.num_computed_tokens + num_new_tokens
        if request.status != RequestStatus.RUNNING and self._scheduler.scheduler_reserve_full_isl:
            tokens = request.num_tokens
        shared = sum(b.ref_cnt > 0 for b in hits.blocks[0]) if hits is not None else 0
        needed = self._beyond_held(request, tokens) - shared
        return needed - self._manager.block_pool.get_num_free_blocks()

    def _gain(self, victims: list[Request], kept: list[str], hits: KVCacheBlocks | None) -> int:
        """Blocks that ``victims`` and ``kept`` programs give back, ``hits`` left out."""
        groups = [self._manager.get_blocks(victim.request_id).blocks for victim in victims]
        held = Counter(b.block_id for blocks in groups for group in blocks for b in group)
        held.update(self._scheduler.programs.blocks(kept))
        needed = {b.block_id for group in hits.blocks for b in group} if hits is not None else ()
        pool = self._manager.block_pool.blocks
        return sum(pool[i].ref_cnt == n for i, n in held.items() if i not in needed)

    def _nobody_to_wait_for(self, request: Request) -> bool:
        """Whether no end of an admitted request, as urgent at least, would make room."""
        scheduler = self._scheduler
        level = scheduler.level(request)
        admitted = itertools.chain(scheduler.running, scheduler.held_requests)
        return request.status == RequestStatus.RUNNING or not any(
            scheduler.level(r) <= level for r in admitted
        )

    def room_beside(self, first: list[Request]) -> int | None:
        """Blocks left for others once all of ``first``, of one class, have theirs.

        None when ``first`` is empty or does not fit itself.
        """
        if not first:
            return None
        free = self._manager.block_pool.get_num_free_blocks() - sum(map(self.growth, first))
        if any(r.status != RequestStatus.RUNNING for r in first):
            free -= self._manager.watermark_blocks
        room = free - self._reserve
        if (room if self._scheduler.level(first[0]) else free) < 0:
            return None
        return max(room, 0)

    def growth(self, request: Request) -> int:
        """Blocks that ``request`` has yet to get for its tokens, at most."""
        tokens = request.num_tokens_with_spec
        if request.status != RequestStatus.RUNNING:
            tokens += self._scheduler.num_spec_tokens  # a padded decode
        return self._beyond_held(request, tokens)

    def _beyond_held(self, request: Request, tokens: int) -> int:
        """Blocks that ``tokens`` of ``request`` fill, and the drafter's, less those it holds.

        vLLM's own count, without hits.
        """
        most = self._scheduler.max_model_len
        encoded = sum(request.get_num_encoder_embeds(i) for i in range(len(request.mm_features)))
        return self._manager.coordinator.get_num_blocks_to_allocate(
            request_id=request.request_id,
            num_tokens=min(tokens + self._scheduler.num_lookahead_tokens, most),
            new_computed_blocks=self._manager.empty_kv_cache_blocks.blocks,
            num_encoder_tokens=encoded,
            total_computed_tokens=request.num_computed_tokens,
            num_local_computed_tokens=request.num_computed_tokens,
            num_tokens_main_model=min(tokens, most),
            apply_admission_cap=request.status != RequestStatus.RUNNING,
            prefill_end=max(request.num_prompt_tokens, request.num_tokens - 1),
        )

    def _leaves_reserve(self, request: Request, without: int = 0) -> bool:
        """Whether the reserve is not for ``request``, with so many others ``without`` blocks."""
        # The only admitted request may use the reserve: it must be able to finish.
        scheduler = self._scheduler
        if not self._reserve or scheduler.level(request) == 0:
            return False
        admitted = len(scheduler.running) + len(scheduler._held) - without
        if admitted <= (request in scheduler.running):
            return False
        # Nor can it wait for ever to be the only one, where it fits in no other way.
        level = scheduler.level(request)
        return not scheduler.load.owed(level) or self._could_fit_beside_reserve(request)

    def _could_fit_beside_reserve(self, request: Request) -> bool:
        """Whether ``request`` finds room if all that are no more urgent give up theirs."""
        scheduler, manager = self._scheduler, self._manager
        level = scheduler.level(request)
        more_urgent = (
            r for r in (*scheduler.running, *scheduler._held) if scheduler.level(r) < level
        )
        # One block is vLLM's own.
        left = manager.kv_cache_config.num_blocks - 1
        left -= len({b for r in (request, *more_urgent) for b in self._blocks_of(r, 0)})
        needed = self._beyond_held(request, request.num_tokens)
        return needed + manager.watermark_blocks + self._reserve <= left

    def written_by(self, requests: list[Request], scheduled: dict[str, int]) -> frozenset[int]:
        """Ids of the blocks that a step writes, for the tokens scheduled for each request.

        ``num_computed_tokens`` has already been advanced past the scheduled tokens.
        """
        written: set[int] = set()
        for request in requests:
            end = request.num_computed_tokens
            written |= self._blocks_of(request, end - scheduled[request.request_id], end)
        return frozenset(written)

    def forget_uncomputed(self, request: Request) -> None:
        """Take blocks that ``request`` has not computed out of the prefix cache.

        vLLM may take the blocks of one that it has just put into the same step, and has registered
        by their hashes what that step would have written.
        """
        self._manager.evict_blocks(self._blocks_of(request, request.num_computed_tokens))

    def _blocks_of(self, request: Request, start: int, end: int | None = None) -> set[int]:
        """Ids of the blocks that hold its tokens from ``start``, to ``end`` or all that follow.

        A block that holds one of them counts.
        """
        found: set[int] = set()
        for manager, blocks in zip(
            self._manager.coordinator.single_type_managers,
            self._manager.get_block_ids(request.request_id),
            strict=True,
        ):
            last = None if end is None else cdiv(end, manager.block_size)
            found.update(blocks[start // manager.block_size : last])
        return found

    def without_unwritten(
        self, blocks: KVCacheBlocks, num_tokens: int, boundary: int, diverged: bool
    ) -> tuple[KVCacheBlocks, int, int, bool]:
        """Cut a prefix-cache hit before the first block that a suspended step still writes.

        vLLM registers a block's hash when the block is allocated, layers before it is written.
        Only the hit of full attention can be shortened: a hit of sliding windows holds the last
        window's blocks alone, and several groups may differ in size. Those are cut to nothing.
        """
        unwritten = frozenset().union(*(s.unwritten_blocks for s in self._scheduler.suspended))
        if not num_tokens or not unwritten:
            return blocks, num_tokens, boundary, diverged
        groups = blocks.blocks
        if all(b.block_id not in unwritten for group in groups for b in group):
            return blocks, num_tokens, boundary, diverged
        manager = self._manager.coordinator.single_type_managers[0]
        if len(groups) > 1 or not isinstance(manager.kv_cache_spec, FullAttentionSpec):
            return self._manager.empty_kv_cache_blocks, 0, 0, False
        valid = next(i for i, b in enumerate(groups[0]) if b.block_id in unwritten)
        kept = valid * manager.block_size
        return self._manager.truncate_computed_blocks(blocks, kept), kept, boundary, diverged
