# SPDX-License-Identifier: Apache-2.0
"""The worker's side of the protocol, mixed into vLLM's worker by ``worker_extension_cls``."""

from __future__ import annotations

import functools
from typing import Any

import torch
from vllm.distributed.parallel_state import get_tp_group
from vllm.v1.core.sched.output import SchedulerOutput

from vllm_qllm.config import PriorityConfig, carried
from vllm_qllm.execution.flag import Flag
from vllm_qllm.execution.gpu.device_flag import DeviceFlag
from vllm_qllm.execution.gpu.interruption import Interruption
from vllm_qllm.execution.gpu.run_ahead import RunAhead
from vllm_qllm.execution.protocol import RunCommand
from vllm_qllm.execution.runner_v1.first_use import compile_ahead
from vllm_qllm.execution.runner_v1.runner import RunnerV1
from vllm_qllm.execution.session import Session, Suspend
from vllm_qllm.execution.transport import rpc_loop
from vllm_qllm.execution.yield_points import install


class SuspendableWorker:
    """Methods that the executors of this package call on every worker."""

    model_runner: Any
    vllm_config: Any
    device: Any

    def priority_attach(self, flag_name: str, lanes: int, suspend: Suspend | None = None) -> int:
        """Make steps of this worker suspendable; called once, after the KV cache exists.

        Args:
            flag_name: of the engine's arrival flag.
            lanes: number of lanes, one for each class.
            suspend: how to reach an engine in this process; None to answer over the RPC queue.

        Returns:
            The number of yield points in a forward pass.
        """
        flag = Flag(flag_name)
        group = get_tp_group()
        config = PriorityConfig.from_dict(carried(self.vllm_config) or {})
        on_gpu = self.device.type == "cuda"
        if not on_gpu:
            compile_ahead(self.model_runner)
        session = Session(
            flag,
            flag.agreement(group.rank_in_group, group.world_size),
            RunnerV1(self.model_runner, lanes),
            suspend or rpc_loop.answer_and_serve,
            functools.partial(RunAhead, config.run_ahead, torch.cuda.Event) if on_gpu else None,
        )
        self._priority_session = session
        context = self.vllm_config.compilation_config.static_forward_context
        interruption = None
        if on_gpu:
            interruption = functools.partial(Interruption, session, DeviceFlag(self.device))
        return install(
            context,
            session.yield_point,
            experts=config.yield_points == "expert",
            interruption=interruption,
        )

    # Like vLLM's own: what the runner makes on first use there cannot be written to elsewhere.
    @torch.inference_mode()
    def priority_execute(self, output: SchedulerOutput, command: RunCommand) -> Any:
        """``execute_model`` in the lane and under the conditions of ``command``."""
        return self._priority_session.run(output, command, self.execute_model)  # type: ignore[attr-defined]
