# SPDX-License-Identifier: Apache-2.0
"""Whether the host has the room that ``spill_bytes`` asks for, before any model is loaded."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import psutil
from vllm.config import KVTransferConfig
from vllm.logger import init_logger
from vllm.platforms import current_platform
from vllm.utils.cpu_resource_utils import get_cgroup_memory_limit, get_cgroup_memory_usage

from vllm_qllm.config import ConfigError, PriorityConfig

logger = init_logger("vllm.qllm")


def available_memory() -> int:
    """Bytes of memory that this machine or container can still give, without swapping."""
    available = int(psutil.virtual_memory().available)
    limit = get_cgroup_memory_limit()
    if limit is None:
        return available
    return min(available, max(0, limit - (get_cgroup_memory_usage() or 0)))


def kv_cache_memory(vllm_config: Any) -> int:
    """Bytes of host memory that KV blocks are going to take, which they do as they are used.

    Left to itself, vLLM gives them a fraction of all memory, less what the model takes.
    """
    cache = vllm_config.cache_config
    if cache.kv_cache_memory_bytes is not None:
        return int(cache.kv_cache_memory_bytes) * int(vllm_config.parallel_config.world_size)
    return int(psutil.virtual_memory().total * cache.gpu_memory_utilization)


def refuse(config: PriorityConfig, workers: int, kv_cache_bytes: int) -> None:
    """Raise ConfigError when the host has no room for what ``workers`` would spill.

    Args:
        workers: each of which spills its part of every block.
        kv_cache_bytes: memory that is promised to the KV blocks of all of them.
    """
    wanted = config.spill_bytes * workers
    of_workers = f" for each of {workers} workers" if workers > 1 else ""
    if config.spill_path is None:
        room = max(0, available_memory() - kv_cache_bytes)
        place = "memory that is available beside the KV blocks"
    else:
        directory = Path(config.spill_path)
        try:
            # A directory that looks writable need not be.
            tempfile.TemporaryFile(dir=directory).close()
            room = os.statvfs(directory).f_bavail * os.statvfs(directory).f_frsize
        except OSError as error:
            raise ConfigError(
                f"priority config: spill_path is {config.spill_path!r} ({error.strerror}); "
                "allowed: a directory in which files can be made"
            ) from error
        place = f"free space in {config.spill_path}"
    if wanted > room:
        raise ConfigError(
            f"priority config: spill_bytes is {config.spill_bytes}{of_workers}; allowed: at most "
            f"the {place}, {room} bytes"
        )


def configure(vllm_config: Any, config: PriorityConfig) -> None:
    """Give an engine the connector that spills, if it is asked for and can be served.

    Raises:
        ConfigError: the host has no room for ``spill_bytes``.
    """
    if not config.spill_bytes:
        return
    reasons = []
    device = vllm_config.device_config.device_type
    if device not in ("cpu", "cuda"):
        reasons.append(f"device {device!r}")
    if current_platform.is_rocm():  # which calls its devices "cuda", too
        reasons.append("ROCm")
    workers = vllm_config.parallel_config.world_size
    if device == "cuda" and workers > 1:
        reasons.append(f"{workers} GPUs")
    if vllm_config.model_config.is_encoder_decoder:
        reasons.append("encoder-decoder models")
    if vllm_config.model_config.is_hybrid or vllm_config.model_config.is_attention_free:
        reasons.append("state-space models")
    if reasons:
        logger.warning(
            "spill_bytes is ignored, preempted requests are computed again: no KV is spilled "
            "with %s.",
            ", ".join(reasons),
        )
        return
    if device == "cuda":
        logger.warning(
            "spill_bytes is %d: what copies KV between a GPU and the host has been run on no GPU "
            "by its authors yet.",
            config.spill_bytes,
        )
    kv_cache_bytes = kv_cache_memory(vllm_config) if device == "cpu" else 0
    refuse(config, workers, kv_cache_bytes)
    vllm_config.kv_transfer_config = KVTransferConfig(
        kv_connector="SpillConnector",
        kv_connector_module_path="vllm_qllm.kv.connector",
        kv_role="kv_both",
        kv_load_failure_policy="recompute",
    )
