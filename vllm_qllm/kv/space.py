# SPDX-License-Identifier: Apache-2.0
"""Whether the host has the room that ``spill_bytes`` asks for, before any model is loaded."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from vllm.config import KVTransferConfig
from vllm.logger import init_logger

from vllm_qllm.config import ConfigError, PriorityConfig

logger = init_logger("vllm.qllm")


def available_memory() -> int:
    """Bytes of memory that this machine can still give, without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    raise OSError("/proc/meminfo has no MemAvailable")


def refuse(config: PriorityConfig, workers: int) -> None:
    """Raise ConfigError when the host has no room for what ``workers`` would spill."""
    wanted = config.spill_bytes * workers
    of_workers = f" for each of {workers} workers" if workers > 1 else ""
    if config.spill_path is None:
        room, place = available_memory(), "available memory"
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
        if workers > 1:
            # What one worker fails to restore, the others would not hear of.
            raise ConfigError(
                f"priority config: spill_path is {config.spill_path!r} with {workers} workers; "
                "allowed: null (memory) with more than one"
            )
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
    refuse(config, vllm_config.parallel_config.world_size)
    reasons = []
    if (device := vllm_config.device_config.device_type) != "cpu":
        reasons.append(f"device {device!r}")
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
    vllm_config.kv_transfer_config = KVTransferConfig(
        kv_connector="SpillConnector",
        kv_connector_module_path="vllm_qllm.kv.connector",
        kv_role="kv_both",
        kv_load_failure_policy="recompute",
    )
