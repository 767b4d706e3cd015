# SPDX-License-Identifier: Apache-2.0
"""vLLM's scheduler, its queues and outputs, and requests."""

from __future__ import annotations

from vllm_qllm.contract.dependency import Dependency, attribute, body, signature, uses

SCHEDULER = uses(
    "vllm.v1.core.sched.scheduler:Scheduler",
    body(
        "schedule",
        "engine.scheduler:PriorityScheduler._schedule_by",
        "It must take running requests in list order, admit what the queues show within "
        "max_num_active_reqs, and leave alone what they hide.",
    ),
    body(
        "_update_after_schedule",
        "engine.blocks:Blocks.written_by",
        "Moves num_computed_tokens past the scheduled tokens before a step is described.",
    ),
    body(
        "update_from_output",
        "engine.scheduler:PriorityScheduler.update_from_output",
        "Results are applied to the scheduled requests alone; those aborted meanwhile are skipped.",
    ),
    body(
        "_preempt_request",
        "engine.requests:Requests.preempt_held",
        "Held-back requests lose their blocks by it: it frees, counts and queues them, and their "
        "removal from running is left to the caller.",
    ),
    body(
        "finish_requests _free_request",
        "engine.scheduler:PriorityScheduler.finish_requests",
        "They free at once; requests of a suspended step must be kept from them.",
    ),
    body(
        "add_request _enqueue_waiting_request",
        "engine.class_queue:ClassQueue",
        "Every request that waits must enter one of the two queues through add_request, with its "
        "status set before.",
    ),
    body(
        "_is_blocked_waiting_status _handle_blocked_waiting_request",
        "engine.census:_is_blocked",
        "The load meter repeats which waiting requests cannot be scheduled, and when their "
        "grammar is ready.",
    ),
    body(
        "get_request_counts",
        "engine.class_queue:ClassQueue",
        "Waiting must count what both queues hold, shown or not.",
    ),
    body(
        "set_pause_state pause_state",
        "engine.scheduler:PriorityScheduler.set_pause_state",
        "A paused engine has nothing to do.",
    ),
    body(
        "get_num_unfinished_requests has_finished_requests has_requests",
        "engine.class_queue:ClassQueue",
        "They decide whether a step is made at all, by the length of queues that hide requests.",
    ),
    body(
        "get_grammar_bitmask",
        "engine.scheduler:PriorityScheduler.get_grammar_bitmask",
        "Its bitmask is memory that a nested step fills again, so it is copied.",
    ),
    body(
        "_get_local_prefix_cache_hit",
        "engine.scheduler:PriorityScheduler._get_local_prefix_cache_hit",
        "Every prefix-cache hit goes through it and is cut before half-written blocks.",
    ),
    body(
        "reset_prefix_cache",
        "engine.calls:need_of",
        "It preempts what runs, or refuses while blocks are in use.",
    ),
    signature("shutdown", "engine.scheduler:PriorityScheduler.shutdown", "Metrics end with it."),
    attribute(
        "running max_num_active_reqs",
        "engine.scheduler:PriorityScheduler",
        "They are replaced around vLLM's schedule() and restored after it.",
    ),
    attribute(
        "waiting kv_holding_waiting",
        "engine.requests:Requests",
        "They are replaced for good.",
    ),
    attribute(
        "deferred_waiting",
        "engine.requests:Requests",
        "Holds the waiting requests that cannot be scheduled yet.",
    ),
    attribute(
        "requests max_num_running_reqs max_num_scheduled_tokens kv_cache_manager",
        "engine",
        "Plans are made from them.",
    ),
    attribute(
        "num_spec_tokens num_lookahead_tokens num_waiting_for_streaming_input lora_config "
        "encoder_cache_manager is_encoder_decoder",
        "engine",
        "Limits of a step: riders leave the leading class its part of each.",
    ),
    attribute(
        "scheduler_reserve_full_isl",
        "engine.blocks:Blocks",
        "Says how many blocks an admission asks for.",
    ),
    attribute(
        "vllm_config", "engine.scheduler:PriorityScheduler.__init__", "Carries the configuration."
    ),
)

OUTPUT = (
    *uses(
        "vllm.v1.core.sched.output:",
        body(
            "SchedulerOutput",
            "engine.scheduler:PriorityScheduler.schedule",
            "An output that is not used hands on what it announces: a new field may be such an "
            "announcement.",
        ),
    ),
    *uses(
        "vllm.v1.core.sched.output:SchedulerOutput",
        attribute(
            "num_scheduled_tokens total_num_scheduled_tokens finished_req_ids preempted_req_ids "
            "free_encoder_mm_hashes",
            "engine.scheduler",
            "Steps are described by them.",
        ),
    ),
    *uses(
        "vllm.v1.core.sched.output:GrammarOutput",
        attribute(
            "grammar_bitmask",
            "engine.scheduler:PriorityScheduler.get_grammar_bitmask",
            "The array that is copied.",
        ),
    ),
    *uses(
        "vllm.v1.outputs:",
        signature(
            "ModelRunnerOutput",
            "execution.no_result:no_result",
            "What a step gives; made without tokens for one that was given up.",
        ),
    ),
)

QUEUE = uses(
    "vllm.v1.core.sched.request_queue:",
    body(
        "RequestQueue",
        "engine.class_queue:ClassQueue",
        "ClassQueue is one: it must have all that vLLM calls.",
    ),
    body(
        "PriorityRequestQueue",
        "engine.class_queue:ClassQueue",
        "Orders the requests within a class, and raises ValueError for one it does not hold.",
    ),
)

REQUEST = (
    *uses(
        "vllm.v1.request:Request",
        attribute(
            "request_id priority status num_computed_tokens num_tokens num_prompt_tokens "
            "num_output_tokens is_prefill_chunk num_preemptions max_tokens arrival_time "
            "structured_output_request is_finished sampling_params cache_salt lora_request "
            "mm_features num_tokens_with_spec num_stale_output_tokens get_num_encoder_embeds",
            "engine",
            "Plans, victims and metrics are worked out from them.",
        ),
        body(
            "__lt__",
            "engine.class_queue:ClassQueue",
            "The order within a class: priority, arrival, id.",
        ),
    ),
    *uses(
        "vllm.sampling_params:SamplingParams",
        attribute("extra_args", "program_id:program_id", "What a client gave as vllm_xargs."),
    ),
    *uses(
        "vllm.v1.core.sched.interface:",
        body(
            "PauseState",
            "engine.scheduler:PriorityScheduler.set_pause_state",
            "How an engine can be paused.",
        ),
    ),
    *uses(
        "vllm.v1.core.sched.interface:PauseState",
        attribute("UNPAUSED", "engine.step_room:StepRoom.is_certain", "Waiting ones are let in."),
    ),
    *uses(
        "vllm.lora.request:LoRARequest",
        attribute("lora_int_id", "engine.step_room:StepRoom", "Which adapter it is."),
    ),
    *uses(
        "vllm.config.lora:LoRAConfig",
        attribute("max_loras", "engine.step_room:StepRoom", "Adapters in one step."),
    ),
    *uses(
        "vllm.config.scheduler:SchedulerConfig",
        attribute(
            "max_num_batched_tokens", "engine.step_room:StepRoom", "Inputs of a step, drafts too."
        ),
    ),
    *uses(
        "vllm.config.speculative:SpeculativeConfig",
        attribute(
            "max_num_new_slots_for_drafting",
            "engine.step_room:StepRoom",
            "Inputs of the drafter for each request.",
        ),
    ),
    *uses(
        "vllm.v1.core.encoder_cache_manager:EncoderCacheManager",
        body(
            "can_allocate free get_cached_input_ids",
            "engine.encoder_guard:EncoderGuard",
            "EncoderGuard stands in front of it, and frees what held-back requests keep.",
        ),
        attribute(
            "cached num_embeds_by_hash num_freeable_slots",
            "engine.encoder_guard:EncoderGuard",
            "Say what freeing would gain.",
        ),
    ),
    *uses(
        "vllm.v1.request:RequestStatus",
        attribute(
            "WAITING RUNNING PREEMPTED WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR "
            "WAITING_FOR_REMOTE_KVS WAITING_FOR_STREAMING_REQ FINISHED_LENGTH_CAPPED "
            "FINISHED_IGNORED FINISHED_ABORTED FINISHED_ERROR FINISHED_REPETITION",
            "engine",
            "Decides what can be scheduled, what can lose its blocks, and how it is counted.",
        ),
    ),
    *uses(
        "vllm.v1.structured_output.request:StructuredOutputRequest",
        body(
            "grammar",
            "engine.census:_is_compiling",
            "Asking must not block: it is asked while a step is suspended.",
        ),
    ),
)

DEPENDENCIES: tuple[Dependency, ...] = (*SCHEDULER, *OUTPUT, *QUEUE, *REQUEST)
