# SPDX-License-Identifier: Apache-2.0
"""README's table of what works where, made by asking ``vllm_qllm.support`` itself.

``python -m tests.platforms`` writes it; a test holds README to it.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from vllm_qllm import support

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- platforms -->", "<!-- /platforms -->"

PLATFORMS = {"CPU": ("cpu", 1), "one NVIDIA GPU": ("cuda", 1), "several NVIDIA GPUs": ("cuda", 2)}
# Feature: what differs from an engine of a plain decoder, by part of vLLM's configuration.
FEATURES: dict[str, dict[str, Any]] = {
    "dense and MoE decoders, eager or compiled, prefix caching": {},
    "LoRA adapters": {"lora_config": SimpleNamespace()},
    "tensor parallelism": {"parallel_config.world_size": 2},
    "speculative decoding": {"speculative_config": SimpleNamespace()},
    "multimodal models": {"model_config.is_multimodal_model": True},
    "state-space and hybrid models": {"model_config.is_hybrid": True},
    "expert parallelism": {"parallel_config.enable_expert_parallel": True},
    "pipeline parallelism": {"parallel_config.pipeline_parallel_size": 2},
    "data parallelism": {"parallel_config.data_parallel_size": 2},
    "KV connectors": {"kv_transfer_config": SimpleNamespace()},
    "model runner V2 where you ask for it": {"use_v2_model_runner": True},
    "asynchronous scheduling where you ask for it": {"scheduler_config.async_scheduling": True},
    "pooling models": {"model_config.runner_type": "pooling"},
}


def engine(device: str, devices: int, changes: Mapping[str, Any]) -> Any:
    """As much of a ``VllmConfig`` as ``support`` looks at."""
    config = SimpleNamespace(
        device_config=SimpleNamespace(device_type=device),
        parallel_config=SimpleNamespace(
            data_parallel_size=1,
            pipeline_parallel_size=1,
            use_ray=False,
            world_size=devices,
            enable_expert_parallel=False,
            worker_extension_cls="",
            distributed_executor_backend="mp",
        ),
        scheduler_config=SimpleNamespace(scheduler_cls=None, async_scheduling=False),
        model_config=SimpleNamespace(
            runner_type="generate",
            hf_config=SimpleNamespace(),
            is_multimodal_model=False,
            is_hybrid=False,
            is_attention_free=False,
        ),
        cache_config=SimpleNamespace(kv_sharing_fast_prefill=False),
        speculative_config=None,
        kv_transfer_config=None,
        ec_transfer_config=None,
        lora_config=None,
        use_v2_model_runner=False,
    )
    for path, value in changes.items():
        owner, _, name = path.rpartition(".")
        setattr(getattr(config, owner) if owner else config, name, value)
    return config


def verdict(device: str, devices: int, changes: Mapping[str, Any]) -> str:
    """What becomes of a policy there."""
    if "parallel_config.world_size" in changes and (device, devices) == ("cuda", 1):
        return "-"
    config = engine(device, devices, changes)
    if support.refusals(config):
        return "refused"
    return "between steps" if support.fallbacks(config) else "in the step"


def render() -> str:
    """The table, in Markdown."""
    rows = [f"| | {' | '.join(PLATFORMS)} |", "|---" * (1 + len(PLATFORMS)) + "|"]
    for verdicts, features in itertools.groupby(FEATURES, _verdicts):
        rows.append(f"| {', '.join(features)} | {' | '.join(verdicts)} |")
    return "\n".join(rows)


def _verdicts(feature: str) -> list[str]:
    return [verdict(*platform, FEATURES[feature]) for platform in PLATFORMS.values()]


def written(text: str) -> str:
    """``text``, a README, with the table in it."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{render()}\n\n{END}{after}"


if __name__ == "__main__":
    README.write_text(written(README.read_text()))
