# SPDX-License-Identifier: Apache-2.0
"""What API servers make of the engine's outputs."""

from __future__ import annotations

from vllm_qllm.contract.dependency import Dependency, attribute, body, signature, uses

OUTPUTS = (
    *uses(
        "vllm.v1.engine.output_processor:OutputProcessor",
        body(
            "process_outputs abort_requests",
            "api.refused:_process_outputs",
            "A request that ends with an error is forgotten, and then gets its exception.",
        ),
        attribute("log_stats", "api.log_probabilities", "Whether statistics are kept."),
    ),
    *uses(
        "vllm.v1.engine.output_processor:OutputProcessorOutput",
        attribute("reqs_to_abort", "api", "Ids for the engine."),
    ),
    *uses(
        "vllm.v1.engine.output_processor:RequestOutputCollector",
        body("put", "api.refused:_process_outputs", "An exception is raised to who waits."),
    ),
    *uses(
        "vllm.v1.engine.output_processor:RequestState",
        attribute("queue parent_req logprobs_processor", "api", "Whose answer it is."),
    ),
    *uses(
        "vllm.v1.engine.async_llm:AsyncLLM",
        body(
            "_run_output_handler",
            "api.log_probabilities:LogProbabilities",
            "Looks process_outputs up for each call, awaits nothing within it, aborts what it says "
            "and records statistics; this is repeated for what is processed later.",
        ),
        attribute("logger_manager", "api.log_probabilities", "Where statistics go."),
    ),
    *uses(
        "vllm.v1.engine.logprobs:LogprobsProcessor",
        body(
            "_update_prompt_logprobs",
            "api.log_probabilities:LogProbabilities._some_rows",
            "Adds rows to those that it has: called for some at a time.",
        ),
    ),
    *uses(
        "vllm.v1.outputs:LogprobsTensors",
        attribute(
            "logprob_token_ids logprobs selected_token_ranks",
            "api.log_probabilities:LogProbabilities._some_rows",
            "Rows of prompts.",
        ),
    ),
    *uses(
        "vllm.v1.engine:EngineCoreOutput",
        attribute(
            "new_logprobs new_prompt_logprobs_tensors",
            "api.log_probabilities:_is_large",
            "What takes long.",
        ),
    ),
    *uses(
        "vllm.v1.engine.core_client:AsyncMPClient",
        signature(
            "abort_requests_async",
            "api.log_probabilities:LogProbabilities._work",
            "Called for requests that end at a stop string.",
        ),
    ),
    *uses(
        "vllm.v1.metrics.loggers:StatLoggerManager",
        body(
            "record",
            "api.log_probabilities:LogProbabilities._piece",
            "Takes the statistics of a call, without those of a scheduler.",
        ),
    ),
    *uses(
        "vllm.v1.metrics.stats:IterationStats",
        body(
            "__init__",
            "api.log_probabilities:LogProbabilities._piece",
            "What one call of process_outputs counts.",
        ),
    ),
)

DEPENDENCIES: tuple[Dependency, ...] = OUTPUTS
