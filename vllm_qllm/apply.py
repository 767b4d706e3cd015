# SPDX-License-Identifier: Apache-2.0
"""Put a priority configuration into a finished VllmConfig."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from vllm.logger import init_logger

from vllm_qllm import support
from vllm_qllm.access.tenants_config import TenantsConfig
from vllm_qllm.config import CARRIER, PriorityConfig
from vllm_qllm.metrics import location
from vllm_qllm.policy import resolve

logger = init_logger("vllm.qllm")


def apply(vllm_config: Any, config: PriorityConfig) -> None:
    """Choose scheduler, executor and worker extension; refuse what cannot be served.

    Raises:
        ConfigError: the engine has a feature that no policy supports, or the policy cannot be
            loaded.
    """
    from vllm_qllm.engine.scheduler import PriorityScheduler
    from vllm_qllm.execution.transport import executor
    from vllm_qllm.kv import space

    support.refuse(vllm_config, config.policy)
    policy = resolve(config)
    if config.tenants is not None:
        TenantsConfig.load(
            config.tenants, config
        )  # again where requests come in; here it ends the start
    if config.yield_points != "none" and getattr(policy, "suspendable", True):
        if reasons := support.fallbacks(vllm_config):
            logger.warning(
                "Priority policy %s preempts between steps only; no step can be suspended with %s.",
                config.policy,
                ", ".join(reasons),
            )
            config = replace(config, yield_points="none")
    else:
        config = replace(config, yield_points="none")
    if processors := support.logits_processors(vllm_config):
        logger.warning(
            "Logits processors %s: a request that is held back leaves the batch and is added to "
            "it again, as one that vLLM preempts. What a processor keeps of it must follow from "
            "its parameters, prompt and output tokens (BatchUpdate.added).",
            ", ".join(processors),
        )
    scheduler, parallel = vllm_config.scheduler_config, vllm_config.parallel_config
    scheduler.scheduler_cls = PriorityScheduler
    # Queues in order of priority; the classes stand above it.
    scheduler.policy = "priority"
    if config.yield_points != "none":
        parallel.worker_extension_cls = "vllm_qllm.execution.worker.SuspendableWorker"
        parallel.distributed_executor_backend = {
            "mp": executor.SuspendableMultiprocExecutor,
            "uni": executor.SuspendableUniProcExecutor,
        }[parallel.distributed_executor_backend]
    space.configure(vllm_config, config)
    # One of several API servers: the process that started them has prepared the place.
    is_one_of_several = parallel._api_process_count > 1 and parallel._api_process_rank >= 0
    location.prepare(config, inherit=is_one_of_several)
    vllm_config.additional_config = {**vllm_config.additional_config, CARRIER: config.to_dict()}
    logger.info(
        "Priority policy %s, classes %s, yield points: %s.",
        config.policy,
        ", ".join(
            f"{c.name} (<= {c.max_priority})" if c.max_priority is not None else c.name
            for c in config.classes
        ),
        config.yield_points,
    )
