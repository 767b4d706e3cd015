# SPDX-License-Identifier: Apache-2.0
"""How vLLM compiles grammars, and what it asks them."""

from __future__ import annotations

from vllm_qllm.contract.dependency import Dependency, attribute, body, signature, uses

GRAMMARS = (
    *uses(
        "vllm.v1.structured_output:StructuredOutputManager",
        body(
            "grammar_init _create_grammar",
            "engine.grammar_pool:GrammarPool.submit",
            "Each grammar is compiled by executor.submit(self._create_grammar, request).",
        ),
        body(
            "__init__",
            "engine.grammars:Grammars",
            "Makes the executor that is replaced, a ThreadPoolExecutor without a thread yet; none "
            "without a tokenizer.",
        ),
        body(
            "clear_backend",
            "engine.grammar_pool:GrammarPool.shutdown",
            "Ends the executor before it lets go of the backend.",
        ),
        body(
            "grammar_bitmask accept_tokens validate_tokens _fill_bitmasks",
            "engine.metered_grammar:MeteredGrammar",
            "All that a grammar is asked, in the engine's thread, by the methods of "
            "StructuredOutputGrammar alone.",
        ),
        attribute("backend", "engine.grammars:_apart", "The backend, once there is a grammar."),
        attribute("executor", "engine.grammars:Grammars", "What is replaced."),
    ),
    *uses(
        "vllm.v1.structured_output.backend_types:StructuredOutputGrammar",
        signature(
            "accept_tokens validate_tokens rollback fill_bitmask is_terminated reset",
            "engine.metered_grammar:MeteredGrammar",
            "A grammar that is metered must have all of its methods.",
        ),
    ),
    *uses(
        "vllm.v1.structured_output.backend_guidance:GuidanceBackend",
        body(
            "compile_grammar",
            "engine.grammars:_apart",
            "It keeps what it compiles in an attribute, so each thread calls it on a copy.",
        ),
    ),
    *uses(
        "vllm.v1.structured_output.request:StructuredOutputRequest",
        attribute(
            "_grammar", "engine.grammars:Grammars.expire", "A future, a grammar or an exception."
        ),
        body(
            "structured_output_key",
            "engine.grammar_limits:GrammarLimits.check_size",
            "The kind of a grammar and its text.",
        ),
    ),
    *uses(
        "vllm.v1.core.sched.scheduler:Scheduler",
        attribute(
            "grammar_compile_error_reqs structured_output_manager",
            "engine.grammars:Grammars",
            "Requests whose grammar is an exception, and who compiles.",
        ),
    ),
    *uses(
        "vllm.v1.request:Request",
        body(
            "get_finished_reason take_events",
            "engine.grammars:Grammars.charge",
            "What vLLM says of a request that ends with an error.",
        ),
        attribute("client_index trace_headers", "engine.grammars:Grammars.charge", "The same."),
    ),
    *uses(
        "vllm.v1.engine:EngineCoreOutput",
        attribute(
            "request_id new_token_ids finish_reason stop_reason events trace_headers",
            "engine.grammars:Grammars.charge",
            "Such an output has no stop_reason of vLLM's.",
        ),
    ),
    *uses("vllm.v1.engine:FinishReason", attribute("ERROR", "engine.grammars", "It failed.")),
)

DEPENDENCIES: tuple[Dependency, ...] = GRAMMARS
