# SPDX-License-Identifier: Apache-2.0
"""Turn a built EngineCore, before its first step, into one that runs nested steps."""

from __future__ import annotations

from vllm.v1.engine.core import EngineCore, EngineCoreProc

from vllm_qllm.engine.arrivals import Arrivals
from vllm_qllm.engine.controller import Controller
from vllm_qllm.engine.scheduler import PriorityScheduler


def attach(engine: EngineCore) -> None:
    """Watch the arrivals of an engine with a priority policy, and let its steps nest.

    Without in-step preemption the arrivals are watched for their times only.
    """
    scheduler = engine.scheduler
    if not isinstance(scheduler, PriorityScheduler):
        return
    if not scheduler.in_step:
        if isinstance(engine, EngineCoreProc):
            classes = len(scheduler.priority_config.classes)
            Arrivals(engine.input_queue, classes, scheduler.by_class.level, lambda level: None)
        return
    controller = Controller(engine)
    engine.priority_controller = controller  # type: ignore[attr-defined]
    shutdown = engine.shutdown

    def shutdown_and_close() -> None:
        # First, while there is time: the process may be killed before vLLM's own shutdown ends.
        controller.close()
        shutdown()

    engine.shutdown = shutdown_and_close  # type: ignore[method-assign]
    if not isinstance(engine, EngineCoreProc):
        engine.step_fn = controller.step_in_process
