# SPDX-License-Identifier: Apache-2.0
"""EngineCore, its queues and what it is asked for."""

from __future__ import annotations

from vllm_qllm.contract.dependency import Dependency, attribute, body, signature, uses

CORE = (
    *uses(
        "vllm.v1.engine.core:EngineCore",
        body(
            "step",
            "engine.controller:Controller.on_suspended",
            "Nested steps run inside its wait for a result, after the step's grammar bitmask was "
            "made and before its output is applied.",
        ),
        body("post_step", "engine.controller:Controller._step", "Called after each nested step."),
        body(
            "_process_aborts_queue abort_requests",
            "engine.scheduler:PriorityScheduler.finish_requests",
            "Aborts that come during a step end in the scheduler.",
        ),
        body(
            "preprocess_add_request",
            "engine.arrivals:Arrivals._level_of",
            "Makes the request whose class the IO thread reads.",
        ),
        signature("shutdown", "engine.attach:attach", "The flag is released before it."),
        body(
            "get_supported_tasks is_scheduler_paused is_sleeping get_weight_version list_loras "
            "compute_weight_checksums save_sharded_state resume_scheduler wake_up profile "
            "release_kv_cache_memory reset_mm_cache reset_prefix_cache sleep",
            "engine.calls:need_of",
            "They do nothing that a suspended step minds, or only with some arguments.",
        ),
        attribute(
            "scheduler model_executor step_fn vllm_config", "engine", "The parts of an engine."
        ),
    ),
    *uses(
        "vllm.v1.engine.core:EngineCoreProc",
        body(
            "run_busy_loop",
            "seams.engine:_run_busy_loop",
            "The first call on the engine's thread after plugins are loaded and KV caches exist.",
        ),
        body(
            "_process_input_queue has_work",
            "engine.arrivals:Arrivals",
            "Requests are taken from input_queue between steps; Arrivals counts what is left.",
        ),
        body(
            "process_input_sockets",
            "engine.arrivals:Arrivals",
            "The IO thread puts (ADD, (request, wave)) into input_queue, which raises the flag.",
        ),
        body(
            "_process_engine_step",
            "engine.controller:Controller._step",
            "Runs a nested step and hands out its outputs at once.",
        ),
        body(
            "_handle_client_request",
            "engine.controller:Controller._take_input",
            "Handles what arrives while a step is suspended, calls that need no step included.",
        ),
        body(
            "pause_scheduler",
            "engine.calls:need_of",
            "Which of its modes end requests, and which waits for them.",
        ),
        body(
            "_handle_shutdown is_running",
            "engine.controller:Controller._is_stopping",
            "A shutdown that aborts must get to its end soonest.",
        ),
        attribute("input_queue", "engine.attach:attach", "A queue.Queue that is already in use."),
    ),
    *uses(
        "vllm.v1.engine.core_client:InprocClient",
        body(
            "__init__ get_output",
            "seams.engine:_inproc_client_init",
            "An engine in this process is attached to here and stepped by step_fn.",
        ),
        attribute("engine_core", "seams.engine:_inproc_client_init", "The engine."),
    ),
    *uses(
        "vllm.v1.engine:EngineCoreOutputs",
        attribute(
            "outputs scheduler_stats",
            "engine.controller:Controller.step_in_process",
            "Outputs of nested steps are merged by them.",
        ),
        body(
            "__post_init__",
            "engine.controller:Controller.step_in_process",
            "The first output's own values stay when others are merged into it.",
        ),
    ),
    *uses(
        "vllm.v1.engine:EngineCoreRequestType",
        attribute("ADD ABORT UTILITY WAKEUP", "engine", "What an item of the input queue is."),
    ),
    *uses(
        "vllm.config.vllm:VllmConfig",
        attribute(
            "shutdown_timeout",
            "engine.controller:Controller._is_stopping",
            "With 0 requests are aborted.",
        ),
    ),
)

DEPENDENCIES: tuple[Dependency, ...] = CORE
