# SPDX-License-Identifier: Apache-2.0
"""vLLM's interface for KV that comes from elsewhere, and the calls that vLLM makes to it."""

from __future__ import annotations

from vllm_qllm.contract.dependency import Dependency, attribute, body, signature, uses

BASE = "vllm.distributed.kv_transfer.kv_connector.v1.base:"

CONNECTOR = (
    *uses(
        BASE,
        attribute("KVConnectorRole", "kv.connector", "Which of the two sides one is."),
        body("SupportsHMA", "kv.connector:SpillConnector", "Finished requests are told by it."),
        body("KVConnectorMetadata", "kv.copies:Copies", "What a step carries to the workers."),
        body("KVConnectorWorkerMetadata", "kv.copies:CopyReport", "What they answer."),
        body(
            "KVConnectorBase_V1",
            "kv.connector:SpillConnector",
            "A new method may have to be answered, or a call may come at another time.",
        ),
    ),
    *uses(
        "vllm.v1.worker.kv_connector_model_runner_mixin:KVConnectorModelRunnerMixin",
        body(
            "_get_kv_connector_output",
            "kv.connector:SpillConnector",
            "Binds, loads before the forward pass when a step restores anything, and clears: the "
            "calls of nested steps must nest. So it does when the forward pass is unwound.",
        ),
    ),
    *uses(
        "vllm.distributed.kv_transfer.kv_transfer_state:",
        signature(
            "get_kv_transfer_group has_kv_transfer_group",
            "execution.no_result:no_result",
            "The connector of a worker, asked for what a step that was given up has copied.",
        ),
    ),
    *uses(
        "vllm.model_executor.layers.attention.kv_transfer_utils:",
        body(
            "maybe_transfer_kv_layer",
            "kv.connector:SpillConnector.wait_for_layer_load",
            "Asks for a layer's KV before anything reads it, though not before it is written.",
        ),
    ),
    *uses(
        "vllm.model_executor.layers.attention.attention:",
        signature("Attention", "kv.connector:SpillConnector", "The layers that ask for their KV."),
    ),
    *uses(
        "vllm.v1.simple_kv_offload.cuda_mem_ops:",
        signature("pin_tensor", "kv.pinned_tier:PinnedTier", "Pins host memory as it is."),
    ),
    *uses(
        "vllm.v1.core.sched.scheduler:Scheduler",
        signature(
            "_build_kv_connector_meta",
            "engine.scheduler:PriorityScheduler",
            "The last moment at which a step's copies can be added.",
        ),
        attribute("connector", "engine.scheduler:PriorityScheduler", "Ours, or none."),
        body(
            "_update_requests_with_invalid_blocks _handle_invalid_blocks",
            "engine.parking:Parking.completed",
            "Computes again what could not be restored, and leaves it in the prefix cache.",
        ),
        body(
            "_connector_finished",
            "kv.connector:SpillConnector.request_finished_all_groups",
            "Every request that ends comes by here, admitted or not.",
        ),
    ),
    *uses(
        "vllm.v1.core.sched.output:SchedulerOutput",
        attribute("kv_connector_metadata", "engine.scheduler", "A step's copies."),
        attribute("scheduled_cached_reqs", "engine.parking", "What is no new request."),
    ),
    *uses(
        "vllm.v1.core.sched.output:CachedRequestData",
        attribute("req_ids resumed_req_ids", "engine.parking", "Who runs on, who came back."),
    ),
    *uses(
        "vllm.v1.outputs:KVConnectorOutput",
        attribute(
            "invalid_block_ids kv_connector_worker_meta", "engine.parking", "How copies went."
        ),
    ),
    *uses(
        "vllm.v1.outputs:ModelRunnerOutput",
        attribute("kv_connector_output", "engine.scheduler", "Where it comes back."),
    ),
    *uses(
        "vllm.v1.core.kv_cache_manager:KVCacheManager",
        signature("evict_blocks", "engine", "Uncaches blocks that are bad or never written."),
    ),
    *uses(
        "vllm.v1.core.block_pool:BlockPool",
        attribute("num_gpu_blocks", "engine.blocks:Blocks", "The size of the pool."),
    ),
    *uses(
        "vllm.v1.kv_cache_interface:KVCacheConfig",
        attribute(
            "kv_cache_tensors kv_cache_groups", "kv.connector:SpillConnector", "Bytes of a block."
        ),
    ),
    *uses(
        "vllm.v1.metrics.cache_hit_source:CacheHitSource",
        attribute("HOST", "kv.connector:SpillConnector", "How vLLM counts what is restored."),
    ),
    *uses(
        "vllm.v1.request:Request",
        attribute(
            "skip_reading_prefix_cache",
            "kv.spill:Spill.preempt",
            "Such a request computes its whole prompt again, whatever is kept of it.",
        ),
    ),
    *uses(
        "vllm.config:",
        signature("KVTransferConfig", "kv.space:configure", "Names the connector."),
    ),
    *uses(
        "vllm.config.vllm:VllmConfig",
        attribute("cache_config", "kv.connector:SpillConnector", "Tokens of a block."),
    ),
    *uses(
        "vllm.config.cache:CacheConfig",
        attribute(
            "kv_cache_memory_bytes gpu_memory_utilization",
            "kv.space:kv_cache_memory",
            "The memory that is promised to KV blocks.",
        ),
    ),
    *uses(
        "vllm.v1.worker.cpu_worker:CPUWorker",
        body(
            "determine_available_memory",
            "kv.space:kv_cache_memory",
            "Says how much of the host's memory KV blocks get.",
        ),
    ),
    *uses(
        "vllm.utils.cpu_resource_utils:",
        signature(
            "get_cgroup_memory_limit get_cgroup_memory_usage",
            "kv.space:available_memory",
            "What a container may use, and does.",
        ),
    ),
    *uses(
        "vllm.config.model:ModelConfig",
        attribute("is_encoder_decoder", "kv.space:configure", "No connector serves them in vLLM."),
    ),
)

DEPENDENCIES: tuple[Dependency, ...] = CONNECTOR
