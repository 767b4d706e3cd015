# SPDX-License-Identifier: Apache-2.0
"""Model runner V1, its buffers, and attention."""

from __future__ import annotations

from vllm_qllm.contract.dependency import Dependency, attribute, body, signature, uses

RUNNER = (
    *uses(
        "vllm.v1.worker.gpu_model_runner:GPUModelRunner",
        body(
            "__init__",
            "execution.runner_v1.lanes:Lanes.__init__",
            "A lane has a copy of every buffer and tensor that is an attribute of the runner. "
            "Per-step state of another type, or further inside, would be shared by all lanes.",
        ),
        body(
            "execute_model",
            "execution.session:Session.run",
            "It is left on the stack in the middle: what it reads from the runner after the "
            "forward pass must be in a lane. And it tells the KV connector of a step before it "
            "writes or zeroes any block.",
        ),
        body(
            "sample_tokens",
            "seams.engine:_sample_tokens",
            "Finishes the step of the active lane from execute_model_state.",
        ),
        body(
            "_bookkeeping_sync",
            "execution.runner_v1.seeds:unused_generators_set_aside",
            "Takes back what was drawn for thrown-away rows; the reason for seeds.py.",
        ),
        body(
            "_update_states",
            "execution.runner_v1.row_state:rows_handed_over",
            "Brings one batch up to date from runner.requests, which all lanes share; other lanes "
            "keep their rows. What a removed row remembers is kept there for the next one.",
        ),
        body(
            "_prepare_inputs _build_attention_metadata",
            "execution.runner_v1.lanes:Lanes",
            "Which buffers a forward pass reads.",
        ),
        body(
            "may_reinitialize_input_batch",
            "execution.runner_v1.lanes:_new_batch",
            "Made to build a batch for a lane by clearing the block sizes it compares with.",
        ),
        body(
            "initialize_metadata_builders",
            "execution.runner_v1.lanes:_new_attention_groups",
            "Makes builders for what attn_groups holds at that moment.",
        ),
        attribute(
            "attn_groups _kernel_block_sizes",
            "execution.runner_v1.lanes:_new_attention_groups",
            "A lane has builders of its own: they may keep buffers.",
        ),
        attribute(
            "_init_block_sizes input_batch kv_cache_config vllm_config device model_config "
            "is_pooling_model",
            "execution.runner_v1.lanes",
            "A lane's batch is made with them.",
        ),
        attribute(
            "execute_model_state kv_connector_output",
            "execution.runner_v1.lanes:EPHEMERAL",
            "State between execute_model and sample_tokens, one for each lane.",
        ),
        attribute(
            "discard_request_mask",
            "execution.runner_v1.seeds:unused_generators_set_aside",
            "Says which rows are thrown away.",
        ),
        attribute(
            "lora_config", "execution.runner_v1.active_lora:ActiveLoRA", "None without LoRA."
        ),
        attribute(
            "requests", "execution.runner_v1.lanes", "Shared by all lanes: a row is made from it."
        ),
    ),
    *uses(
        "vllm.v1.worker.utils:AttentionGroup",
        body(
            "create_metadata_builders",
            "execution.runner_v1.lanes:_new_attention_groups",
            "All that it makes is the group's own.",
        ),
        attribute(
            "metadata_builders",
            "execution.runner_v1.lanes:_new_attention_groups",
            "Emptied in a copy of the group, and made anew.",
        ),
    ),
    *uses(
        "vllm.config:",
        signature(
            "set_current_vllm_config",
            "execution.runner_v1.lanes:_new_attention_groups",
            "Builders ask for the configuration of the engine.",
        ),
    ),
    *uses(
        "vllm.v1.worker.cpu_model_runner:CPUModelRunner",
        body(
            "_postprocess_tensors",
            "execution.runner_v1.lanes:_copy_buffer",
            "One tensor for both sides of a buffer, which the copies must keep.",
        ),
    ),
    *uses(
        "vllm.v1.worker.gpu_input_batch:InputBatch",
        body(
            "__init__",
            "execution.runner_v1.lanes:_new_batch",
            "Everything in it belongs to one lane.",
        ),
        body(
            "remove_request condense",
            "execution.runner_v1.row_state:remove_row",
            "Rows are removed between steps of a lane; the next one condenses its batch.",
        ),
        attribute(
            "req_id_to_index", "execution.runner_v1.row_state:remove_row", "Which rows a lane has."
        ),
        attribute(
            "logitsprocs", "execution.runner_v1.lanes:_new_batch", "Kept by row, so one set a lane."
        ),
        attribute(
            "thinking_budget_state_holder",
            "execution.runner_v1.row_state:_holders",
            "Kept by row, and not made again from tokens.",
        ),
        attribute(
            "generators num_reqs",
            "execution.runner_v1.seeds:unused_generators_set_aside",
            "The generators of the rows.",
        ),
    ),
    *uses(
        "vllm.v1.core.sched.output:SchedulerOutput",
        attribute(
            "scheduled_new_reqs",
            "execution.runner_v1.row_state:rows_handed_over",
            "Requests that begin, or begin anew with another prompt.",
        ),
    ),
    *uses(
        "vllm.v1.core.sched.output:NewRequestData",
        attribute(
            "req_id", "execution.runner_v1.row_state:rows_handed_over", "Of which request it is."
        ),
    ),
    *uses(
        "vllm.v1.sample.logits_processor.state:LogitsProcessors",
        attribute("all", "execution.runner_v1.row_state:_holders", "Always in the same order."),
    ),
    *uses(
        "vllm.v1.sample.logits_processor:",
        attribute(
            "LOGITSPROCS_GROUP",
            "support:logits_processors",
            "The entry points of logits processors, of which the operator is warned.",
        ),
    ),
    *uses(
        "vllm.v1.sample.thinking_budget_state:ThinkingBudgetStateHolder",
        body(
            "sync_batch update_state",
            "execution.runner_v1.row_state:_holders",
            "Rows come and go in the one, tokens are counted in the other, when they are sampled.",
        ),
        attribute("_state", "execution.runner_v1.row_state:_holders", "By row."),
    ),
    *uses(
        "vllm.v1.sample.logits_processor:AdapterLogitsProcessor",
        body(
            "update_state apply",
            "execution.runner_v1.row_state:_holders",
            "The one makes and moves what the other calls for each row.",
        ),
        attribute("req_info", "execution.runner_v1.row_state:_holders", "By row."),
    ),
    *uses(
        "vllm.v1.worker.lora_model_runner_mixin:LoRAModelRunnerMixin",
        body(
            "_set_active_loras",
            "execution.runner_v1.active_lora:ActiveLoRA",
            "Sets which adapters the layers use; put back by the same call.",
        ),
    ),
    *uses(
        "vllm.v1.utils:",
        body("CpuGpuBuffer", "execution.runner_v1.lanes:_copy_buffer", "Copied part by part."),
    ),
    *uses(
        "vllm.v1.utils:CpuGpuBuffer",
        attribute("cpu gpu np", "execution.runner_v1.lanes:_copy_buffer", "Its parts."),
    ),
    *uses(
        "vllm.v1.sample.logits_processor:",
        signature(
            "build_logitsprocs",
            "execution.runner_v1.lanes:_new_batch",
            "Logits processors of a lane.",
        ),
    ),
    *uses(
        "vllm.utils.platform_utils:",
        signature(
            "is_pin_memory_available", "execution.runner_v1.lanes:_new_batch", "Asked as vLLM does."
        ),
    ),
    *uses(
        "vllm.config.model:ModelConfig",
        attribute(
            "logits_processors", "execution.runner_v1.lanes:_new_batch", "Those of the user."
        ),
    ),
)

ATTENTION = (
    *uses(
        "vllm.model_executor.layers.attention.attention:",
        body(
            "unified_attention_with_output",
            "execution.yield_points:install",
            "Looks up layer.impl.forward at run time, in compiled mode too: the yield point.",
        ),
    ),
    *uses(
        "vllm.model_executor.layers.attention.attention:Attention",
        attribute("impl", "execution.yield_points:install", "Holds the method to wrap."),
    ),
    *uses(
        "vllm.model_executor.layers.attention.mla_attention:",
        body(
            "unified_mla_attention_with_output",
            "execution.yield_points:install",
            "Looks up layer.forward_impl at run time: the yield point.",
        ),
    ),
    *uses(
        "vllm.model_executor.layers.attention.mla_attention:MLAAttention",
        signature("forward_impl", "execution.yield_points:install", "The method to wrap."),
    ),
    *uses(
        "vllm.forward_context:",
        body(
            "set_forward_context override_forward_context",
            "execution.session:Session.yield_point",
            "A nested step's context is put back when it ends.",
        ),
    ),
    *uses(
        "vllm.v1.attention.backends.cpu_attn:CPUAttentionMetadataBuilder",
        body(
            "__init__ build",
            "execution.runner_v1.lanes:Lanes",
            "Metadata is made anew for each step; a buffer kept here would be shared by lanes.",
        ),
    ),
    *uses(
        "vllm.config.compilation:CUDAGraphMode",
        signature(
            "has_piecewise_cudagraphs has_full_cudagraphs",
            "engine.cuda_graphs:captured_tokens",
            "Whether any step does.",
        ),
    ),
    *uses(
        "vllm.config.vllm:VllmConfig",
        attribute("compilation_config", "execution.worker:SuspendableWorker", "Holds the layers."),
    ),
    *uses(
        "vllm.config.compilation:CompilationConfig",
        attribute(
            "cudagraph_mode max_cudagraph_capture_size",
            "engine.cuda_graphs:captured_tokens",
            "Which steps may replay a CUDA graph.",
        ),
        attribute(
            "static_forward_context", "execution.worker:SuspendableWorker", "Layers by name."
        ),
    ),
)

SAMPLER = (
    *uses(
        "vllm.v1.sample.sampler:Sampler",
        body(
            "gather_logprobs",
            "execution.runner_v1.first_use:compile_ahead",
            "Compiles what it calls, once for all numbers of rows, when it is first called.",
        ),
    ),
    *uses(
        "vllm.v1.worker.gpu_model_runner:GPUModelRunner",
        attribute("sampler", "execution.runner_v1.first_use:compile_ahead", "What samples."),
    ),
    *uses(
        "vllm.config.model:ModelConfig",
        signature(
            "get_vocab_size", "execution.runner_v1.first_use:compile_ahead", "Columns of logits."
        ),
    ),
)

DEPENDENCIES: tuple[Dependency, ...] = (*RUNNER, *ATTENTION, *SAMPLER)
