# SPDX-License-Identifier: Apache-2.0
"""Which engines a policy can serve: what is refused, what falls back to step-level preemption."""

from __future__ import annotations

import os
import sys
from importlib.metadata import entry_points
from typing import Any

from vllm import envs
from vllm.platforms import current_platform
from vllm.v1.sample.logits_processor import LOGITSPROCS_GROUP

from vllm_qllm.config import ConfigError


def refusals(vllm_config: Any) -> list[str]:
    """Reasons why no policy can serve this engine, in words; empty when one can."""
    parallel, scheduler = vllm_config.parallel_config, vllm_config.scheduler_config
    reasons = []
    if parallel.data_parallel_size > 1:
        reasons.append("data parallelism (--data-parallel-size) is not supported")
    if parallel.pipeline_parallel_size > 1:
        reasons.append("pipeline parallelism (--pipeline-parallel-size) is not supported")
    if parallel.use_ray:
        # A step is suspended through memory that processes of one machine share.
        reasons.append(
            "the Ray executor (--distributed-executor-backend ray) is not supported: its workers "
            "may be on several machines (use mp; for replicas on several machines see docs/ray.md)"
        )
    if scheduler.scheduler_cls is not None:
        reasons.append(f"another scheduler is set (--scheduler-cls {scheduler.scheduler_cls})")
    if vllm_config.model_config.runner_type == "pooling":
        reasons.append(
            "pooling models answer in one step, priorities between steps are vLLM's own "
            "(--scheduling-policy priority)"
        )
    if vllm_config.kv_transfer_config is not None or vllm_config.ec_transfer_config is not None:
        reasons.append("KV and encoder-cache connectors are not supported")
    if vllm_config.use_v2_model_runner:
        # It has a slot for every admitted request; held-back requests would need more.
        reasons.append("model runner V2 is not supported (set VLLM_USE_V2_MODEL_RUNNER=0 for V1)")
    if scheduler.async_scheduling:
        reasons.append("asynchronous scheduling is on (set --no-async-scheduling)")
    return reasons


def fallbacks(vllm_config: Any) -> list[str]:
    """Reasons why steps of this engine cannot be suspended; empty when they can."""
    parallel = vllm_config.parallel_config
    reasons = []
    device = vllm_config.device_config.device_type
    if device not in ("cpu", "cuda"):
        reasons.append(f"device {device!r}")
    elif current_platform.is_rocm():  # which calls its devices "cuda", too
        reasons.append("ROCm")
    elif device == "cuda" and parallel.world_size > 1:
        # It is untested that several ranks of GPUs stop at one yield point: see docs/gpu.md.
        reasons.append("several GPUs")
    if hasattr(vllm_config.model_config.hf_config, "index_topk"):
        # One buffer for all steps, between the indexer and the attention that reads it.
        reasons.append("sparse attention with an indexer")
    if vllm_config.cache_config.kv_sharing_fast_prefill:
        reasons.append("--kv-sharing-fast-prefill")  # some models keep a step's tensors
    if vllm_config.speculative_config is not None:
        reasons.append("speculative decoding")
    if vllm_config.model_config.is_multimodal_model:
        reasons.append("multimodal inputs")
    if vllm_config.model_config.is_hybrid or vllm_config.model_config.is_attention_free:
        reasons.append("a state-space model")
    if parallel.enable_expert_parallel:
        reasons.append("expert parallelism")
    if parallel.worker_extension_cls:
        reasons.append(f"a worker extension class ({parallel.worker_extension_cls})")
    if parallel.distributed_executor_backend not in ("mp", "uni"):
        reasons.append(f"the executor {parallel.distributed_executor_backend!r}")
    return reasons


def logits_processors(vllm_config: Any) -> list[str]:
    """Names of the logits processors that were added to vLLM's own."""
    named = [
        processor if isinstance(processor, str) else processor.__qualname__
        for processor in vllm_config.model_config.logits_processors or ()
    ]
    return named + [found.value for found in entry_points(group=LOGITSPROCS_GROUP)]


def refuse(vllm_config: Any, policy: str) -> None:
    """Raise ConfigError with every reason why ``policy`` cannot serve this engine."""
    if reasons := refusals(vllm_config):
        listed = "; ".join(reasons)
        raise ConfigError(f"--priority-policy {policy} cannot serve this engine: {listed}")


def choose_model_runner() -> None:
    """Choose model runner V1 for this process and those it starts, unless somebody chose.

    On a GPU vLLM prefers V2, which no policy can serve. Engines without a policy that are made in
    this process later get V1, too: every process of an engine reads the environment.
    """
    if envs.VLLM_USE_V2_MODEL_RUNNER is None:
        os.environ["VLLM_USE_V2_MODEL_RUNNER"] = "0"


def refuse_front_end(args: Any) -> None:
    """Refuse a server whose requests do not pass through vLLM's handlers in Python.

    They understand priorities, the priority header and service tiers; elsewhere a best-effort
    request would be served as the most urgent one, or not be checked.

    Args:
        args: the parsed command line that asks for a policy.

    Raises:
        ConfigError: it asks for a front end that is not supported.
    """
    front_end = None
    # vLLM's gRPC server imports this package, also where it is started without "vllm serve".
    if getattr(args, "grpc", False) or "smg_grpc_servicer" in sys.modules:
        front_end = "the gRPC server (--grpc)"
    # Only "vllm serve" looks at it.
    elif getattr(args, "subparser", None) == "serve" and envs.VLLM_USE_RUST_FRONTEND:
        front_end = "the Rust front end (VLLM_USE_RUST_FRONTEND=1)"
    if front_end is not None:
        raise ConfigError(
            f"a priority policy needs vLLM's HTTP server in Python: {front_end} does not know "
            "classes and service tiers, and is not supported"
        )
