# SPDX-License-Identifier: Apache-2.0
"""Arithmetic over vLLM's KV cache manager: who holds which blocks, and who needs how many."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable

from vllm.utils.math_utils import cdiv
from vllm.v1.core.kv_cache_manager import KVCacheBlocks
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec
from vllm.v1.request import Request, RequestStatus

Hit = tuple[KVCacheBlocks, int, int, bool]


class Blocks:
    """The KV blocks of one scheduler.

    Args:
        scheduler: vLLM's part of it.

    Attributes:
        manager: vLLM's ``KVCacheManager``.
        total: blocks of the pool, with the one that vLLM sets aside.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self.manager = scheduler.kv_cache_manager
        self.total = self.manager.block_pool.num_gpu_blocks
        self._max_model_len = scheduler.max_model_len
        self._lookahead = scheduler.num_lookahead_tokens
        self._drafts = scheduler.num_spec_tokens
        self._whole_prompts = scheduler.scheduler_reserve_full_isl

    # -- what is held --------------------------------------------------------------------------

    @property
    def free(self) -> int:
        """Blocks that nobody holds."""
        return int(self.manager.block_pool.get_num_free_blocks())

    def count(self, request: Request) -> int:
        """Blocks that a request holds, shared ones included."""
        managers = self.manager.coordinator.single_type_managers
        return sum(len(m.req_to_blocks.get(request.request_id, ())) for m in managers)

    def ids(self, request: Request, start: int = 0, end: int | None = None) -> set[int]:
        """Blocks that hold its tokens from ``start``, to ``end`` or all that follow.

        A block that holds one of them counts.
        """
        found: set[int] = set()
        for manager, blocks in zip(
            self.manager.coordinator.single_type_managers,
            self.manager.get_block_ids(request.request_id),
            strict=True,
        ):
            last = None if end is None else cdiv(end, manager.block_size)
            found.update(blocks[start // manager.block_size : last])
        return found

    def shared(self, request: Request) -> int:
        """How many of a request's first blocks others hold, too: its prefix stays cached."""
        (blocks,) = self.manager.get_blocks(request.request_id).blocks
        return sum(1 for _ in itertools.takewhile(lambda b: b.ref_cnt > 1, blocks))

    def alone(self, request: Request) -> int:
        """How many blocks nobody but ``request`` holds."""
        groups = self.manager.get_blocks(request.request_id).blocks
        return sum(b.ref_cnt == 1 for group in groups for b in group)

    def gain(
        self, holders: Iterable[Request], kept: Iterable[int], hits: KVCacheBlocks | None
    ) -> int:
        """Blocks that become free when others let go of theirs.

        Args:
            holders: requests that would.
            kept: ids of what is held for somebody else beside them, once for each.
            hits: blocks that do not count, as who needs the others wants to keep them.
        """
        groups = [self.manager.get_blocks(holder.request_id).blocks for holder in holders]
        held = Counter(b.block_id for blocks in groups for group in blocks for b in group)
        held.update(kept)
        needed = {b.block_id for group in hits.blocks for b in group} if hits is not None else ()
        pool = self.manager.block_pool.blocks
        return sum(pool[i].ref_cnt == n for i, n in held.items() if i not in needed)

    # -- what is needed ------------------------------------------------------------------------

    def growth(self, request: Request) -> int:
        """Blocks that ``request`` has yet to get for its tokens, at most."""
        tokens = request.num_tokens_with_spec
        if request.status != RequestStatus.RUNNING:
            tokens += self._drafts  # a padded decode
        return self.beyond_held(request, tokens)

    def beyond_held(self, request: Request, tokens: int) -> int:
        """Blocks that ``tokens`` of ``request`` fill, and the drafter's, less those it holds.

        vLLM's own count, without hits.
        """
        most = self._max_model_len
        encoded = sum(request.get_num_encoder_embeds(i) for i in range(len(request.mm_features)))
        return self.manager.coordinator.get_num_blocks_to_allocate(
            request_id=request.request_id,
            num_tokens=min(tokens + self._lookahead, most),
            new_computed_blocks=self.manager.empty_kv_cache_blocks.blocks,
            num_encoder_tokens=encoded,
            total_computed_tokens=request.num_computed_tokens,
            num_local_computed_tokens=request.num_computed_tokens,
            num_tokens_main_model=min(tokens, most),
            apply_admission_cap=request.status != RequestStatus.RUNNING,
            prefill_end=max(request.num_prompt_tokens, request.num_tokens - 1),
        )

    def missing(self, request: Request, num_new_tokens: int, hits: KVCacheBlocks | None) -> int:
        """Blocks that ``request`` needs beyond the free ones; 0 when that cannot be told."""
        if len(self.manager.coordinator.single_type_managers) != 1:
            return 0  # groups with windows of their own: only trying tells
        tokens = request.num_computed_tokens + num_new_tokens
        if request.status != RequestStatus.RUNNING and self._whole_prompts:
            tokens = request.num_tokens
        shared = sum(b.ref_cnt > 0 for b in hits.blocks[0]) if hits is not None else 0
        return self.beyond_held(request, tokens) - shared - self.free

    # -- what is in them -----------------------------------------------------------------------

    def written_by(self, requests: list[Request], scheduled: dict[str, int]) -> frozenset[int]:
        """Ids of the blocks that a step writes, for the tokens scheduled for each request.

        ``num_computed_tokens`` has already been advanced past the scheduled tokens.
        """
        written: set[int] = set()
        for request in requests:
            end = request.num_computed_tokens
            written |= self.ids(request, end - scheduled[request.request_id], end)
        return frozenset(written)

    def forget(self, ids: Iterable[int]) -> None:
        """Take blocks out of the prefix cache: they do not hold what their hashes say."""
        self.manager.evict_blocks(set(ids))

    def forget_uncomputed(self, request: Request) -> None:
        """Take blocks that ``request`` has not computed out of the prefix cache.

        vLLM may take the blocks of one that it has just put into the same step, and has registered
        by their hashes what that step would have written.
        """
        self.forget(self.ids(request, request.num_computed_tokens))

    def valid_tokens(self, request: Request, unwritten: frozenset[int]) -> int:
        """Tokens that a request counts as computed, up to the first in an ``unwritten`` block."""
        before = valid = request.num_computed_tokens
        for manager, blocks in zip(
            self.manager.coordinator.single_type_managers,
            self.manager.get_block_ids(request.request_id),
            strict=True,
        ):
            size = manager.block_size
            for i, block in enumerate(blocks[: before // size]):
                if block in unwritten:
                    valid = min(valid, i * size)
        return valid

    def without(self, hit: Hit, unwritten: frozenset[int]) -> Hit:
        """Cut a prefix-cache hit before the first block that a suspended step still writes.

        vLLM registers a block's hash when the block is allocated, layers before it is written.
        Only the hit of full attention can be shortened: a hit of sliding windows holds the last
        window's blocks alone, and several groups may differ in size. Those are cut to nothing.
        """
        blocks, num_tokens, boundary, diverged = hit
        if not num_tokens or not unwritten:
            return hit
        groups = blocks.blocks
        if all(b.block_id not in unwritten for group in groups for b in group):
            return hit
        manager = self.manager.coordinator.single_type_managers[0]
        if len(groups) > 1 or not isinstance(manager.kv_cache_spec, FullAttentionSpec):
            return self.manager.empty_kv_cache_blocks, 0, 0, False
        valid = next(i for i, b in enumerate(groups[0]) if b.block_id in unwritten)
        kept = valid * manager.block_size
        return self.manager.truncate_computed_blocks(blocks, kept), kept, boundary, diverged
