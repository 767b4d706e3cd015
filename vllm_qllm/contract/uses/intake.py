# SPDX-License-Identifier: Apache-2.0
"""What lies between the socket and the engine: the body, the renderer, the way in."""

from __future__ import annotations

from vllm_qllm.contract.dependency import Dependency, attribute, body, signature, uses

DEPENDENCIES: tuple[Dependency, ...] = (
    *uses(
        "vllm.entrypoints.launchers.app:",
        body(
            "build_app",
            "intake.endpoint:IntakeEndpoint",
            "Attaches plugins before it adds middleware, so that keys are looked at first.",
        ),
    ),
    *uses(
        "vllm.renderers.base:BaseRenderer",
        body(
            "__init__",
            "intake.renderer:bound",
            "Makes the executor and what begins work in it, both replaced on the object.",
        ),
        attribute("_executor", "intake.renderer:_pool", "The threads of all classes."),
        attribute("_resources", "intake.renderer:bound", "Ends the thread with the others."),
        attribute("tokenizer", "intake.renderer:bound", "Says whether two threads may use it."),
        attribute("_tokenize_prompt_async", "intake.renderer:bound", "Every text goes through it."),
        attribute(
            "_async_tokenizer_decode", "intake.renderer:bound", "Every list of ids goes through it."
        ),
        body(
            "_tokenize_singleton_prompt_async",
            "intake.renderer:bound",
            "Cuts a text to its side first, then has it tokenized.",
        ),
        body("_detokenize_prompt_async", "intake.renderer:bound", "Has a list of ids decoded."),
    ),
    *uses(
        "vllm.renderers.base:_SwappableExecutor",
        signature("submit", "intake.front_pool:FrontPool", "Replaced on the object."),
        body(
            "replace_inner", "intake.front_pool:FrontPool", "Replaced, too: it has other threads."
        ),
    ),
    *uses(
        "vllm.utils.async_utils:",
        body(
            "make_async",
            "intake.front_pool:FrontPool",
            "Submits in the task of the request, which tells its class.",
        ),
    ),
    *uses(
        "vllm.tokenizers.hf:",
        attribute(
            "ThreadSafeHFTokenizerMixin",
            "intake.renderer:_pool",
            "A tokenizer that several threads may use.",
        ),
        body(
            "maybe_make_thread_pool",
            "intake.renderer:_pool",
            "Makes one more copy of the tokenizer when all are taken.",
        ),
    ),
    *uses(
        "vllm.v1.engine.async_llm:AsyncLLM",
        signature("add_request", "intake.admission:Admission", "Every sequence enters by it."),
        body("generate", "intake.admission:Admission", "Calls it on the object."),
        attribute("renderer", "intake.endpoint:IntakeEndpoint", "Shared by all handlers."),
    ),
)
