# SPDX-License-Identifier: Apache-2.0
"""The layer of experts, and the kernels that it chooses from."""

from __future__ import annotations

from vllm_qllm.contract.dependency import Dependency, attribute, body, signature, uses

LAYER = "vllm.model_executor.layers.fused_moe"

DEPENDENCIES: tuple[Dependency, ...] = (
    *uses(
        f"{LAYER}.runner.moe_runner:MoERunner",
        body(
            "_select_forward",
            "seams.experts:_select_forward",
            "Replaced by the opaque op, which must be what other devices use, for experts that "
            "are not an op of their own.",
        ),
        body(
            "_forward_impl",
            "execution.yield_points:_among_experts",
            "A step is suspended inside it: what it keeps on the layer is shared by all lanes.",
        ),
        attribute(
            "_shared_experts routed_experts",
            "seams.experts:_select_forward",
            "Say which of two ops it is, and who computes the experts.",
        ),
        attribute(
            "router shared_experts",
            "execution.yield_points:_setting_aside",
            "Who keeps what belongs to a step.",
        ),
    ),
    *uses(
        f"{LAYER}.runner.shared_experts:SharedExperts",
        body(
            "forward output",
            "execution.yield_points:_setting_aside",
            "Keeps its output on the layer between the two.",
        ),
        attribute("_output", "execution.yield_points:_setting_aside", "That output."),
    ),
    *uses(
        f"{LAYER}.router.zero_expert_router:ZeroExpertRouter",
        attribute(
            "_zero_expert_output",
            "execution.yield_points:_setting_aside",
            "Kept on the router from the choice of experts until they are computed.",
        ),
    ),
    *uses(
        f"{LAYER}.experts.lora_experts_mixin:LoRAExpertsMixin",
        attribute(
            "_lora_context",
            "execution.yield_points:_setting_aside",
            "Holds the input of the step that computes the experts.",
        ),
    ),
    *uses(
        f"{LAYER}.experts.lora_context:MoELoRAContext",
        attribute("original_hidden_states", "execution.yield_points:_setting_aside", "That input."),
    ),
    *uses(
        f"{LAYER}.runner.moe_runner:",
        body(
            "_moe_forward _moe_forward_shared get_layer_from_name",
            "seams.experts:_select_forward",
            "What the opaque ops do; a nested step calls them again. Our op finds its layer so.",
        ),
    ),
    *uses(
        f"{LAYER}.modular_kernel:FusedMoEKernelModularImpl",
        body(
            "_fused_experts _allocate_buffers",
            "execution.yield_points:_among_experts",
            "Nested steps must not share its buffers; on the CPU each call has its own.",
        ),
    ),
    *uses(
        f"{LAYER}.modular_kernel:FusedMoEKernel",
        attribute(
            "fused_experts",
            "execution.yield_points:_among_experts",
            "How the experts of a layer are found.",
        ),
    ),
    *uses(
        "vllm.model_executor.kernels.linear.zentorch_utils:",
        signature(
            "is_zentorch_moe_config_supported",
            "kernels.moe.experts:PreemptibleExperts",
            "Whether another library computes the layer.",
        ),
    ),
    *uses(
        "vllm.model_executor.utils:",
        signature(
            "replace_parameter",
            "kernels.moe.experts:PreemptibleExperts",
            "Puts weights in another layout in place of those loaded.",
        ),
    ),
    *uses(
        "vllm.utils.torch_utils:",
        signature(
            "direct_register_custom_op _resolve_layer_name",
            "kernels.moe.experts_op",
            "How vLLM defines its ops, and finds the layer that one is called for.",
        ),
        signature(
            "_encode_layer_name",
            "kernels.moe.experts:PreemptibleExperts.apply",
            "Names a layer to an op without a graph for each layer.",
        ),
        attribute("LayerNameType", "kernels.moe.experts_op", "The type of such a name."),
    ),
    *uses(
        f"{LAYER}.routed_experts:RoutedExperts",
        attribute(
            "layer_name quant_method",
            "kernels.moe.experts:PreemptibleExperts",
            "The name under which the forward context has the layer, and who has its kernel.",
        ),
    ),
    *uses(
        f"{LAYER}.unquantized_fused_moe_method:UnquantizedFusedMoEMethod",
        attribute(
            "experts_cls",
            "seams.experts:_select_forward",
            "The class of experts, chosen before the layer says whether it is opaque.",
        ),
    ),
    *uses(
        "vllm.config.vllm:",
        signature(
            "get_current_vllm_config get_current_vllm_config_or_none",
            "seams.experts:_select_forward",
            "Whether a policy is on while a model is built.",
        ),
    ),
    *uses(
        f"{LAYER}.oracle.unquantized:",
        signature("backend_to_kernel_cls", "seams.experts:_backend_to_kernel_cls", "Wrapped."),
        body(
            "select_unquantized_moe_backend",
            "seams.experts:_backend_to_kernel_cls",
            "Takes the first class of the list that supports the layer.",
        ),
    ),
    *uses(
        f"{LAYER}.experts.cpu_moe:CPUUnquantizedExperts",
        body(
            "_pad_moe_intermediate is_supported_config apply process_weights_after_loading",
            "kernels.moe.experts:PreemptibleExperts",
            "Our experts are one of these, with another kernel and another layout.",
        ),
        attribute("reduction_alignment", "kernels.moe.experts:PreemptibleExperts", "Overridden."),
    ),
    *uses(
        f"{LAYER}.experts.triton_moe:TritonExperts",
        body(
            "is_supported_config apply finalize_weight_and_reduce_impl",
            "kernels.moe.triton_experts:ResumableTritonExperts",
            "Our experts on a GPU are these with another kernel for long layers: both take the "
            "same weights and sum over the experts of a token.",
        ),
        body(
            "_supports_current_device _supports_no_act_and_mul _supports_quant_scheme "
            "_supports_activation _supports_parallel_config _supports_batch_invariance",
            "kernels.moe.triton_experts:ResumableTritonExperts",
            "Overridden: what our kernel supports is a part of it.",
        ),
    ),
    *uses(
        f"{LAYER}.modular_kernel:",
        attribute(
            "FusedMoEExperts FusedMoEActivationFormat ExpertTokensMetadata",
            "kernels.moe.triton_experts",
            "What experts are to vLLM.",
        ),
    ),
    *uses(
        f"{LAYER}.activation:",
        attribute("MoEActivation", "kernels.moe.triton_experts", "Names of activations."),
    ),
)
