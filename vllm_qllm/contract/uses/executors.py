# SPDX-License-Identifier: Apache-2.0
"""Executors and workers."""

from __future__ import annotations

from vllm_qllm.contract.dependency import Dependency, attribute, body, signature, uses

EXECUTORS = (
    *uses(
        "vllm.v1.executor.multiproc_executor:MultiprocExecutor",
        body(
            "execute_model",
            "execution.transport.executor:SuspendableMultiprocExecutor.execute_model",
            "Replaced by RPCs of our own, so all that it does besides must not be missed.",
        ),
        body(
            "collective_rpc sample_tokens",
            "execution.transport.executor:SuspendableMultiprocExecutor._rpc",
            "Answers come in the order of the RPCs, and nested ones before that of the outer step.",
        ),
        body(
            "shutdown start_worker_monitor",
            "execution.transport.executor:SuspendableMultiprocExecutor.shutdown",
            "Marks the executor as failed before it ends the workers that are left.",
        ),
        attribute(
            "is_failed workers",
            "execution.transport.executor:SuspendableMultiprocExecutor.shutdown",
            "Whether a worker has died, and which may be left.",
        ),
        attribute(
            "output_rank",
            "execution.transport.executor:SuspendableMultiprocExecutor._rpc",
            "The one rank that answers for a step.",
        ),
    ),
    *uses(
        "vllm.v1.executor.multiproc_executor:WorkerProcHandle",
        attribute(
            "proc",
            "execution.transport.executor:SuspendableMultiprocExecutor.shutdown",
            "The process of a worker.",
        ),
    ),
    *uses(
        "vllm.v1.executor.multiproc_executor:",
        body(
            "FutureWrapper",
            "execution.transport.executor:StepFuture",
            "Waiting for one answer takes those before it from the queue, and no others.",
        ),
    ),
    *uses(
        "vllm.v1.executor.uniproc_executor:UniProcExecutor",
        body(
            "execute_model collective_rpc",
            "execution.transport.executor:SuspendableUniProcExecutor.execute_model",
            "Replaced by a call of our own: the step runs inside it, nested ones within.",
        ),
    ),
    *uses(
        "vllm.v1.executor.abstract:Executor",
        body("get_class", "apply:apply", "Takes an executor that is given as a class."),
    ),
    *uses(
        "vllm.envs:",
        attribute(
            "VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS",
            "execution.transport.executor:SuspendableMultiprocExecutor._rpc",
            "Bounds the wait for an answer.",
        ),
    ),
)

WORKER = (
    *uses(
        "vllm.v1.executor.multiproc_executor:WorkerProc",
        body(
            "worker_busy_loop _execute_worker_rpc",
            "execution.transport.rpc_loop:answer_and_serve",
            "A suspended worker takes RPCs as this loop does, and answers in the same order.",
        ),
        body(
            "enqueue_output handle_output",
            "execution.transport.rpc_loop:answer_and_serve",
            "Sends Suspended as the result of the RPC that started the step; others go the same "
            "way while scheduling is synchronous.",
        ),
        attribute(
            "rpc_broadcast_mq rank",
            "execution.transport.rpc_loop:answer_and_serve",
            "Where RPCs come from, and who answers.",
        ),
    ),
    *uses(
        "vllm.distributed.device_communicators.shm_broadcast:MessageQueue",
        signature(
            "dequeue", "execution.transport.rpc_loop:answer_and_serve", "Takes the next RPC."
        ),
    ),
    *uses(
        "vllm.v1.worker.worker_base:WorkerWrapperBase",
        body(
            "init_worker",
            "execution.worker:SuspendableWorker",
            "Mixes the worker extension class into the worker.",
        ),
        body(
            "execute_model",
            "execution.worker:SuspendableWorker.priority_execute",
            "Left out: priority_execute goes to the worker itself, below this wrapper.",
        ),
    ),
    *uses(
        "vllm.v1.worker.gpu_worker:Worker",
        body(
            "determine_available_memory",
            "seams.engine:_determine_available_memory",
            "Gives the KV cache what one step leaves, and measures what that step takes.",
        ),
        attribute(
            "peak_activation_memory cudagraph_memory_estimate available_kv_cache_memory_bytes",
            "seams.engine:_determine_available_memory",
            "What it has measured.",
        ),
        body(
            "execute_model",
            "execution.worker:SuspendableWorker.priority_execute",
            "Runs a step on the runner; what it keeps from step to step is not in a lane.",
        ),
        attribute("model_runner", "execution.worker:SuspendableWorker", "The runner."),
    ),
    *uses(
        "vllm.distributed.parallel_state:",
        signature("get_tp_group", "execution.worker", "The ranks that stop together."),
    ),
    *uses(
        "vllm.distributed.parallel_state:GroupCoordinator",
        attribute("rank_in_group world_size", "execution.worker", "Rank 0 decides for all."),
    ),
)

DEPENDENCIES: tuple[Dependency, ...] = (*EXECUTORS, *WORKER)
