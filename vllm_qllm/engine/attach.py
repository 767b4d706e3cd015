# SPDX-License-Identifier: Apache-2.0
"""Turn a built EngineCore, before its first step, into one that runs nested steps."""

from __future__ import annotations

from vllm.v1.engine.core import EngineCore, EngineCoreProc

from vllm_qllm.engine.controller import Controller
from vllm_qllm.engine.scheduler import PriorityScheduler


def attach(engine: EngineCore) -> None:
    """Attach a controller when the engine has a priority policy with in-step preemption."""
    scheduler = engine.scheduler
    if not isinstance(scheduler, PriorityScheduler) or not scheduler.in_step:
        return
    controller = Controller(engine)
    engine.priority_controller = controller  # type: ignore[attr-defined]
    shutdown = engine.shutdown

    def shutdown_and_close() -> None:
        shutdown()
        controller.close()

    engine.shutdown = shutdown_and_close  # type: ignore[method-assign]
    if not isinstance(engine, EngineCoreProc):
        engine.step_fn = controller.step_in_process
