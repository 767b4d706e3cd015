# SPDX-License-Identifier: Apache-2.0
"""Multiprocess transport: a suspended worker answers, then serves RPCs until it is resumed.

Requests and responses stay in strict order: the answer to the RPC that started the step is
``Suspended``, and the answer to the RPC that resumes it is the step's next answer.
"""

from __future__ import annotations

from typing import Any

from vllm.v1.executor.multiproc_executor import WorkerProc

from vllm_qllm.execution.protocol import Suspended

# The RPC that resumes a step is never looked up on the worker: this loop ends on it.
RESUME = "priority_resume"

_process: WorkerProc | None = None


def busy_loop(process: WorkerProc, original: Any) -> None:
    """Run vLLM's worker loop, known to :func:`answer_and_serve` as this process's one."""
    global _process
    _process = process
    original(process)


def answer_and_serve(suspended: Suspended) -> int:
    """Answer ``suspended`` for the current RPC and serve others; returns the next deadline."""
    process = _process
    assert process is not None and process.rpc_broadcast_mq is not None
    if process.rank == 0:
        process.enqueue_output(suspended)
    while True:
        request = process.rpc_broadcast_mq.dequeue(indefinite=True)
        method, args = request[0], request[1]
        if method == RESUME:
            return int(args[0])
        process._execute_worker_rpc(request)
