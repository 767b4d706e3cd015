# SPDX-License-Identifier: Apache-2.0
"""Model runner V1 as :class:`~vllm_qllm.execution.runner.Runner`."""

from __future__ import annotations

from typing import Any

from vllm.v1.core.sched.output import SchedulerOutput

from vllm_qllm.execution.runner_v1.active_lora import ActiveLoRA
from vllm_qllm.execution.runner_v1.lanes import Lanes


class RunnerV1:
    """Puts lanes and LoRA adapters of one model runner together.

    Args:
        runner: vLLM's, on which nothing has run yet.
        lanes: how many to make.
    """

    def __init__(self, runner: Any, lanes: int) -> None:
        self._lanes = Lanes(runner, lanes)
        self._lora = ActiveLoRA(runner)

    def begin(self, lane: int, output: SchedulerOutput) -> None:
        """See :class:`~vllm_qllm.execution.runner.Runner`."""
        self._lanes.claim(lane, output)

    def leave(self) -> Any:
        """See :class:`~vllm_qllm.execution.runner.Runner`; here, the active adapters."""
        return self._lora.active

    def enter(self, lane: int, left: Any) -> None:
        """See :class:`~vllm_qllm.execution.runner.Runner`."""
        self._lanes.activate(lane)
        self._lora.restore(left)

    def forget(self, output: SchedulerOutput) -> None:
        """See :class:`~vllm_qllm.execution.runner.Runner`."""
        self._lanes.forget(output)
