# SPDX-License-Identifier: Apache-2.0
"""Where the engine and its workers run steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vllm_qllm.seams.seam import Seam


def _run_busy_loop(original: Callable[..., Any]) -> Callable[..., Any]:
    def run_busy_loop(self: Any) -> None:
        from vllm_qllm.engine.attach import attach

        attach(self)
        original(self)

    return run_busy_loop


def _inproc_client_init(original: Callable[..., Any]) -> Callable[..., Any]:
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        from vllm_qllm.engine.attach import attach

        original(self, *args, **kwargs)
        attach(self.engine_core)

    return __init__


def _worker_busy_loop(original: Callable[..., Any]) -> Callable[..., Any]:
    def worker_busy_loop(self: Any) -> None:
        from vllm_qllm.execution.transport.rpc_loop import busy_loop

        busy_loop(self, original)

    return worker_busy_loop


def _sample_tokens(original: Callable[..., Any]) -> Callable[..., Any]:
    def sample_tokens(self: Any, grammar_output: Any) -> Any:
        from vllm_qllm.config import carried

        if carried(self.vllm_config) is None or str(self.device) != "cpu":
            return original(self, grammar_output)
        from vllm_qllm.execution.runner_v1.seeds import unused_generators_set_aside

        with unused_generators_set_aside(self):
            return original(self, grammar_output)

    return sample_tokens


def _update_states(original: Callable[..., Any]) -> Callable[..., Any]:
    def update_states(self: Any, scheduler_output: Any) -> Any:
        from vllm_qllm.config import carried

        if carried(self.vllm_config) is None:
            return original(self, scheduler_output)
        from vllm_qllm.execution.runner_v1.row_state import rows_handed_over

        with rows_handed_over(self, scheduler_output):
            return original(self, scheduler_output)

    return update_states


def _determine_available_memory(original: Callable[..., Any]) -> Callable[..., Any]:
    def determine_available_memory(self: Any) -> Any:
        from vllm import envs

        from vllm_qllm.config import carried

        available = original(self)
        data = carried(self.vllm_config)
        if data is None or data["yield_points"] == "none" or "cuda" not in str(self.device):
            return available
        if self.cache_config.kv_cache_memory_bytes:
            return available  # said by the operator, and nothing was measured
        # A suspended step keeps its activations while others run on top of it. What vLLM has
        # measured includes an estimate for CUDA graphs, of which there is one set.
        activations = self.peak_activation_memory
        if envs.VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS:
            activations -= self.cudagraph_memory_estimate
        kept = (len(data["classes"]) - 1) * activations
        # The value for --kv-cache-memory that vLLM recommends is made from these.
        self.peak_activation_memory += kept
        self.available_kv_cache_memory_bytes -= kept
        return available - kept

    return determine_available_memory


# vLLM loads plugins inside EngineCore.__init__, so what is replaced in that process must be
# something that is called after it.
ENGINE = (
    Seam(
        "vllm.v1.engine.core",
        "EngineCoreProc",
        "run_busy_loop",
        ("self",),
        "noticing arrivals and running nested steps",
        _run_busy_loop,
    ),
    Seam(
        "vllm.v1.engine.core_client",
        "InprocClient",
        "__init__",
        ("self", "vllm_config", "executor_class", "log_stats", "executor_fail_callback"),
        "nested steps of an engine without a process of its own",
        _inproc_client_init,
    ),
    Seam(
        "vllm.v1.executor.multiproc_executor",
        "WorkerProc",
        "worker_busy_loop",
        ("self",),
        "serving RPCs while a step is suspended",
        _worker_busy_loop,
    ),
    Seam(
        "vllm.v1.worker.gpu_worker",
        "Worker",
        "determine_available_memory",
        ("self",),
        "room on a GPU for the activations of suspended steps",
        _determine_available_memory,
    ),
    Seam(
        "vllm.v1.worker.gpu_model_runner",
        "GPUModelRunner",
        "sample_tokens",
        ("self", "grammar_output"),
        "seeded requests whose prompt takes several steps, on the CPU",
        _sample_tokens,
    ),
    Seam(
        "vllm.v1.worker.gpu_model_runner",
        "GPUModelRunner",
        "_update_states",
        ("self", "scheduler_output"),
        "thinking budgets and logits processors of requests that were held back",
        _update_states,
    ),
)
