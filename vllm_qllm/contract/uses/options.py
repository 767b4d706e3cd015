# SPDX-License-Identifier: Apache-2.0
"""Options and configuration."""

from __future__ import annotations

from vllm_qllm.contract.dependency import Dependency, attribute, body, signature, uses

OPTIONS = (
    *uses(
        "vllm.engine.arg_utils:EngineArgs",
        signature("add_cli_args", "seams.options:_add_cli_args", "The options are added after it."),
        attribute("model", "status.endpoint:StatusEndpoint", "Shown where it has no other name."),
        attribute("served_model_name", "status.endpoint:StatusEndpoint", "Shown: its names."),
        body("from_cli_args", "seams.options:_from_cli_args", "The options are read beside it."),
        signature(
            "create_engine_config",
            "seams.options:_create_engine_config",
            "Scheduler, executor and worker extension are put into what it returns.",
        ),
        attribute("additional_config", "cli:config_of", "Carries the options to other processes."),
        attribute(
            "async_scheduling",
            "seams.options:_create_engine_config",
            "Switched off unless asked for.",
        ),
    ),
    *uses(
        "vllm.engine.arg_utils:",
        attribute(
            "EngineArgs AsyncEngineArgs",
            "seams",
            "Dataclasses: their __init__ is wrapped to take the options.",
        ),
    ),
    *uses(
        "vllm.plugins:",
        body("load_general_plugins", "__init__:__getattr__", "LLM(...) needs the plugin before."),
    ),
    *uses(
        "vllm.entrypoints.launchers.cli_args:FrontendArgs",
        attribute("middleware", "cli:add_middleware", "Tenants add one."),
        attribute("api_key", "cli:add_middleware", "Refused beside tenants."),
    ),
    *uses("vllm:", attribute("LLM", "__init__:__getattr__", "What users get.")),
    *uses("vllm.logger:", signature("init_logger", "apply", "Says at start what is on.")),
)

CONFIG = (
    *uses(
        "vllm.config.vllm:VllmConfig",
        attribute(
            "parallel_config scheduler_config model_config kv_transfer_config ec_transfer_config "
            "device_config speculative_config use_v2_model_runner",
            "support",
            "What no policy can serve is refused by them.",
        ),
        attribute(
            "additional_config", "apply:apply", "Carries the configuration to every process."
        ),
    ),
    *uses(
        "vllm.config.scheduler:SchedulerConfig",
        body("get_scheduler_cls", "apply:apply", "Takes a scheduler that is given as a class."),
        attribute("scheduler_cls policy", "apply:apply", "Set to the scheduler and its order."),
        attribute("async_scheduling", "support:refusals", "Refused: one step is in flight."),
    ),
    *uses(
        "vllm.config.parallel:ParallelConfig",
        attribute(
            "data_parallel_size pipeline_parallel_size world_size "
            "enable_expert_parallel use_ray "
            "worker_extension_cls distributed_executor_backend",
            "support",
            "Decides whether steps can be suspended.",
        ),
        attribute(
            "_api_process_count _api_process_rank",
            "apply:apply",
            "Tells one of several API servers, which must not choose a new place for metrics.",
        ),
    ),
    *uses(
        "vllm.config.model:ModelConfig",
        attribute(
            "runner_type is_multimodal_model is_hybrid is_attention_free",
            "support",
            "Decides whether steps can be suspended.",
        ),
    ),
    *uses(
        "vllm.config.model:ModelConfig",
        attribute("hf_config", "support:fallbacks", "Says whether attention has an indexer."),
    ),
    *uses(
        "vllm.config.cache:CacheConfig",
        attribute(
            "kv_sharing_fast_prefill",
            "support:fallbacks",
            "Some models then keep tensors of a step.",
        ),
    ),
    *uses(
        "vllm.config.device:DeviceConfig",
        attribute(
            "device_type", "support:fallbacks", "Steps are suspended on the CPU and on one GPU."
        ),
    ),
    *uses(
        "vllm.envs:",
        attribute("VLLM_USE_V2_MODEL_RUNNER", "support", "Chooses the runner."),
        attribute(
            "VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS",
            "seams.engine:_determine_available_memory",
            "Whether the measured peak includes CUDA graphs.",
        ),
        attribute("VLLM_USE_RUST_FRONTEND", "support", "It passes by the handlers."),
        attribute("VLLM_API_KEY", "cli:add_middleware", "Refused beside tenants."),
    ),
    *uses(
        "vllm.platforms:",
        attribute("current_platform", "verify.checks:in_step", "The CPU, or something else."),
    ),
    *uses(
        "vllm.platforms.interface:Platform",
        attribute("is_rocm", "support:fallbacks", "Its devices are called cuda, too."),
        attribute(
            "is_cpu is_cuda device_type", "verify.checks:in_step", "The CPU, or something else."
        ),
    ),
)

DEPENDENCIES: tuple[Dependency, ...] = (*OPTIONS, *CONFIG)
