# SPDX-License-Identifier: Apache-2.0
"""What the host cannot hold is refused before a model is loaded."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from vllm.platforms import current_platform

from vllm_qllm.config import ConfigError, PriorityConfig
from vllm_qllm.kv import space
from vllm_qllm.kv.space import available_memory, refuse


def test_more_memory_than_there_is() -> None:
    refuse(PriorityConfig(spill_bytes=1 << 20), workers=2, kv_cache_bytes=1 << 20)
    with pytest.raises(ConfigError, match=r"spill_bytes is \d+; allowed: at most the memory that"):
        refuse(PriorityConfig(spill_bytes=2 * available_memory()), workers=1, kv_cache_bytes=0)
    with pytest.raises(ConfigError, match="for each of 4 workers"):
        refuse(PriorityConfig(spill_bytes=available_memory() // 2), workers=4, kv_cache_bytes=0)


def test_memory_is_not_promised_twice() -> None:
    half = PriorityConfig(spill_bytes=available_memory() // 2)
    refuse(half, workers=1, kv_cache_bytes=available_memory() // 4)
    with pytest.raises(ConfigError, match="beside the KV blocks"):
        refuse(half, workers=1, kv_cache_bytes=available_memory() * 3 // 4)


def test_a_container_has_the_memory_of_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "get_cgroup_memory_limit", lambda: 3 << 20)
    monkeypatch.setattr(space, "get_cgroup_memory_usage", lambda: 1 << 20)
    assert available_memory() == 2 << 20
    monkeypatch.setattr(space, "get_cgroup_memory_usage", lambda: 4 << 20)
    assert available_memory() == 0


def test_a_directory_that_does_not_serve(tmp_path: Path) -> None:
    refuse(PriorityConfig(spill_bytes=1, spill_path=str(tmp_path)), workers=1, kv_cache_bytes=0)
    missing = str(tmp_path / "missing")
    with pytest.raises(ConfigError, match=r"spill_path is .*missing.*No such file.*allowed: a dir"):
        refuse(PriorityConfig(spill_bytes=1, spill_path=missing), workers=1, kv_cache_bytes=0)
    for other in ("pipe", "file"):
        os.mkfifo(tmp_path / "pipe") if other == "pipe" else (tmp_path / "file").touch()
        config = PriorityConfig(spill_bytes=1, spill_path=str(tmp_path / other))
        with pytest.raises(ConfigError, match=rf"spill_path is .*{other}' \(Not a directory\)"):
            refuse(config, workers=1, kv_cache_bytes=0)
    with pytest.raises(ConfigError, match="spill_path is '/proc'"):
        refuse(PriorityConfig(spill_bytes=1, spill_path="/proc"), workers=1, kv_cache_bytes=0)
    with pytest.raises(ConfigError, match="free space in"):
        refuse(
            PriorityConfig(spill_bytes=1 << 60, spill_path=str(tmp_path)),
            workers=1,
            kv_cache_bytes=0,
        )
    refuse(
        PriorityConfig(spill_bytes=1 << 20, spill_path=str(tmp_path)), workers=2, kv_cache_bytes=0
    )
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    with pytest.raises(ConfigError, match="for each of 2 workers; allowed: at most the free space"):
        refuse(
            PriorityConfig(spill_bytes=free * 3 // 4, spill_path=str(tmp_path)),
            workers=2,
            kv_cache_bytes=0,
        )


def engine_config(device: str, workers: int = 1) -> Any:
    """What decides whether an engine can spill."""
    return SimpleNamespace(
        device_config=SimpleNamespace(device_type=device),
        parallel_config=SimpleNamespace(world_size=workers),
        cache_config=SimpleNamespace(kv_cache_memory_bytes=1 << 60, gpu_memory_utilization=0.9),
        model_config=SimpleNamespace(
            is_encoder_decoder=False, is_hybrid=False, is_attention_free=False
        ),
        kv_transfer_config=None,
    )


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is logged."""
    seen: list[str] = []
    monkeypatch.setattr(space.logger, "warning", lambda text, *args: seen.append(text % args))
    return seen


def test_one_gpu_spills_beside_kv_blocks_that_are_not_on_the_host(warnings: list[str]) -> None:
    config = PriorityConfig(spill_bytes=1 << 20)
    with pytest.raises(ConfigError, match="beside the KV blocks"):
        space.configure(engine_config("cpu"), config)
    on_gpu = engine_config("cuda")
    space.configure(on_gpu, config)
    assert on_gpu.kv_transfer_config.kv_connector == "SpillConnector"
    assert len(warnings) == 1 and "has been run on no GPU" in warnings[0]


@pytest.mark.parametrize(
    ("device", "workers", "rocm", "reason"),
    [
        ("xpu", 1, False, "device 'xpu'"),
        ("cuda", 2, False, "2 GPUs"),
        ("cuda", 1, True, "ROCm"),
    ],
)
def test_where_nothing_can_be_spilled_the_reason_is_told(
    monkeypatch: pytest.MonkeyPatch,
    warnings: list[str],
    device: str,
    workers: int,
    rocm: bool,
    reason: str,
) -> None:
    monkeypatch.setattr(type(current_platform), "is_rocm", lambda self: rocm)
    asked = engine_config(device, workers)
    space.configure(asked, PriorityConfig(spill_bytes=1 << 20))
    assert asked.kv_transfer_config is None
    (told,) = warnings
    assert told.startswith("spill_bytes is ignored") and told.endswith(f"with {reason}.")
