# SPDX-License-Identifier: Apache-2.0
"""vLLM's bookkeeping of KV blocks."""

from __future__ import annotations

from vllm_qllm.contract.dependency import Dependency, attribute, body, signature, uses

KV = (
    *uses(
        "vllm.v1.core.kv_cache_manager:KVCacheManager",
        body(
            "allocate_slots",
            "engine.kv_guard:KVGuard",
            "KVGuard stands in front of it: reserve and watermark are applied where it applies "
            "them, and it registers prefix hashes before the blocks are written.",
        ),
        body(
            "get_computed_blocks get_computed_blocks_for_connector",
            "engine.blocks:Blocks.without",
            "The only lookups of prefix-cache hits.",
        ),
        body(
            "truncate_computed_blocks",
            "engine.blocks:Blocks.without",
            "Cuts a hit, and must keep it usable.",
        ),
        signature("get_blocks get_block_ids", "engine.blocks:Blocks", "Blocks of a request."),
        attribute(
            "coordinator block_pool empty_kv_cache_blocks",
            "engine.blocks:Blocks",
            "Free and needed blocks are counted with them.",
        ),
        attribute(
            "kv_cache_config watermark_blocks",
            "engine.kv_guard:KVGuard",
            "The reserve is a part of the pool, and stands beside vLLM's own margin.",
        ),
    ),
    *uses(
        "vllm.v1.core.kv_cache_manager:KVCacheBlocks",
        attribute("blocks", "engine.blocks:Blocks", "One list of blocks a group."),
    ),
    *uses(
        "vllm.v1.core.kv_cache_coordinator:KVCacheCoordinator",
        attribute("single_type_managers", "engine.blocks:Blocks", "One manager a group."),
        body(
            "get_num_blocks_to_allocate",
            "engine.blocks:Blocks.beyond_held",
            "The number of missing blocks is worked out as it does, for one group.",
        ),
    ),
    *uses(
        "vllm.v1.core.single_type_kv_cache_manager:SingleTypeKVCacheManager",
        attribute("block_size kv_cache_spec", "engine.blocks:Blocks", "Tokens in a block."),
        attribute("req_to_blocks", "engine.blocks:Blocks.count", "Counted in every step."),
        body(
            "get_num_blocks_to_allocate",
            "engine.blocks:Blocks.beyond_held",
            "The number of missing blocks is worked out as it does.",
        ),
    ),
    *uses(
        "vllm.v1.core.block_pool:BlockPool",
        signature("get_num_free_blocks", "engine.blocks:Blocks", "Free blocks."),
        body(
            "touch free_blocks",
            "engine.programs:Programs",
            "Blocks are held by the one and given back by the other, the first one first to go.",
        ),
    ),
    *uses(
        "vllm.v1.core.kv_cache_utils:KVCacheBlock",
        attribute(
            "block_id ref_cnt", "engine.blocks:Blocks", "Says what taking a block would gain."
        ),
        attribute("block_hash", "engine.programs:Programs", "None for what nobody can find."),
    ),
    *uses(
        "vllm.v1.kv_cache_interface:",
        attribute(
            "FullAttentionSpec",
            "engine.blocks:Blocks.without",
            "Only hits of full attention can be shortened.",
        ),
    ),
    *uses(
        "vllm.v1.kv_cache_interface:KVCacheConfig",
        attribute("num_blocks", "engine.kv_guard:KVGuard.__init__", "The reserve is part of it."),
    ),
    *uses("vllm.utils.math_utils:", signature("cdiv", "engine.blocks", "Tokens to blocks.")),
)

DEPENDENCIES: tuple[Dependency, ...] = KV
