# SPDX-License-Identifier: Apache-2.0
"""vLLM's executors, with steps that can be suspended and resumed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from vllm import envs
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.executor.multiproc_executor import MultiprocExecutor
from vllm.v1.executor.uniproc_executor import UniProcExecutor

from vllm_qllm.execution.flag import Flag
from vllm_qllm.execution.protocol import RunCommand, Suspended
from vllm_qllm.execution.transport.rpc_loop import RESUME

OnSuspended = Callable[[Suspended], int]
NextCommand = Callable[[], RunCommand]


class StepFuture(Future):  # type: ignore[type-arg]
    """Result of a step that may suspend any number of times before it has one."""

    def __init__(
        self, started: Future[Any], on_suspended: OnSuspended, resume: Callable[[int], Any]
    ) -> None:
        super().__init__()
        self._started = started
        self._on_suspended = on_suspended
        self._resume = resume

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the step; nested steps run inside this call, on the engine's thread."""
        if not self.done():
            answer = self._started.result()
            while isinstance(answer, Suspended):
                answer = self._resume(self._on_suspended(answer))
            self.set_result(answer)
        return super().result()


class SuspendableMultiprocExecutor(MultiprocExecutor):
    """Workers in processes of their own: a suspended worker serves RPCs until it is resumed."""

    _next_command: NextCommand
    _on_suspended: OnSuspended
    _attached = False

    def priority_attach(
        self, flag: Flag, lanes: int, next_command: NextCommand, on_suspended: OnSuspended
    ) -> int:
        """Make steps suspendable; returns the number of yield points in a forward pass."""
        self._next_command, self._on_suspended, self._attached = next_command, on_suspended, True
        return int(self.collective_rpc("priority_attach", args=(flag.name, lanes))[0])

    def execute_model(self, scheduler_output: SchedulerOutput, non_block: bool = False) -> Any:
        """Run one step, which nested steps may interrupt before its result is there."""
        if not self._attached:
            return super().execute_model(scheduler_output, non_block=non_block)
        command = self._next_command()
        started = self._rpc("priority_execute", scheduler_output, command, non_block=True)
        future = StepFuture(started, self._on_suspended, lambda d: self._rpc(RESUME, d))
        return future if non_block else future.result()

    def shutdown(self) -> None:
        """End the workers; at once if one has died.

        A rank that waits for a dead one hears no signal, and vLLM would give it eight seconds to
        hear two, in which clients wait for their errors.
        """
        if self.is_failed:
            for worker in getattr(self, "workers", None) or []:
                worker.proc.kill()
        super().shutdown()

    def _rpc(self, method: str, *args: Any, non_block: bool = False) -> Any:
        return self.collective_rpc(
            method,
            args=args,
            unique_reply_rank=self.output_rank,
            non_block=non_block,
            timeout=envs.VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS,
        )


class SuspendableUniProcExecutor(UniProcExecutor):
    """The worker in this process: a yield point calls the engine's nested loop directly."""

    _next_command: NextCommand
    _attached = False

    def priority_attach(
        self, flag: Flag, lanes: int, next_command: NextCommand, on_suspended: OnSuspended
    ) -> int:
        """Make steps suspendable; returns the number of yield points in a forward pass."""
        self._next_command, self._attached = next_command, True
        return int(self.collective_rpc("priority_attach", args=(flag.name, lanes, on_suspended))[0])

    def execute_model(self, scheduler_output: SchedulerOutput, non_block: bool = False) -> Any:
        """Run one step; nested steps run inside this call."""
        if not self._attached:
            return super().execute_model(scheduler_output, non_block=non_block)
        future = self.collective_rpc(
            "priority_execute",
            args=(scheduler_output, self._next_command()),
            non_block=non_block,
            single_value=True,
        )
        if non_block and future.done():
            future.result()  # raise at once, as vLLM does
        return future
