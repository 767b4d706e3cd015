# SPDX-License-Identifier: Apache-2.0
"""Request handlers, metrics and further routes."""

from __future__ import annotations

from vllm_qllm.contract.dependency import Dependency, attribute, body, signature, uses

HTTP = (
    *uses(
        "vllm.entrypoints.generate.base.serving:GenerateBaseServing",
        signature("__init__", "seams.http:_serving_init", "Handlers are taught after it."),
        body(
            "_get_priority",
            "api.held:held",
            "Replaced on the handler of one request: the lookup of its priority.",
        ),
        attribute(
            "engine_client",
            "api.held:held",
            "Knows the configuration; of one request's handler it carries its priority.",
        ),
    ),
    *uses(
        "vllm.entrypoints.generate.base.serving:",
        attribute("PRIORITY_HEADER", "api.priority", "Read before the body's field."),
    ),
    *uses(
        "vllm.exceptions:VLLMValidationError",
        signature("__init__", "api.priority:UnclearError", "Answered with status 400."),
    ),
    *uses(
        "vllm.exceptions:GracefulHTTPError",
        signature("__init__", "api.draining:DrainingError", "Answered with the status it names."),
    ),
    *uses(
        "vllm.v1.engine.async_llm:AsyncLLM",
        signature("shutdown", "api.draining:Draining", "What SIGTERM calls first, in a thread."),
        signature("check_admission", "api.draining:Draining", "Asked before an answer begins."),
        body("_add_request", "api.draining:Draining", "Asks again, with the request's id."),
        signature("check_health", "api.draining:Draining", "Asked by /health."),
        attribute("errored", "api.draining:Draining", "A dead engine has nothing to drain."),
        attribute("output_handler", "api.draining:Draining", "The task that reads outputs."),
        attribute("output_processor", "api.draining:Draining", "Has all open requests."),
        attribute("engine_core", "api.draining:Draining", "Knows whose the engine is."),
        signature("get_num_unfinished_requests", "api.draining:Draining", "Waited for."),
    ),
    *uses(
        "vllm.v1.engine.core_client:MPClient",
        attribute("resources", "api.draining:Draining", "Hold the engine's processes, if any."),
        body("shutdown", "api.draining:Draining", "Waits for an engine of its own only."),
    ),
    *uses(
        "vllm.v1.engine.core_client:BackgroundResources",
        attribute("engine_manager", "api.draining:Draining", "None in one of several servers."),
    ),
    *uses(
        "vllm.v1.engine.output_processor:OutputProcessor",
        body("propagate_error", "api.draining:Draining", "Ends every request with an error."),
        body("add_request", "api.standstill:Standstill", "Called before a request is sent."),
        attribute("request_states", "api.standstill:Standstill", "Open requests by their id."),
    ),
    *uses(
        "vllm.entrypoints.generate.base.serving:GenerateBaseServing",
        body("_preflight", "api.draining:Draining", "Asks for admission before a stream begins."),
    ),
    *uses(
        "vllm.entrypoints.serve.instrumentator.health:",
        body("health", "api.draining:Draining", "Answers 503 to EngineDeadError alone."),
    ),
    *uses(
        "vllm.v1.engine.exceptions:EngineDeadError",
        signature("__init__", "api.draining:Draining", "Raised without arguments."),
    ),
    *uses(
        "vllm.entrypoints.openai.responses.protocol:ResponsesRequest",
        attribute(
            "service_tier",
            "api.tier_names:strict_routes",
            "Takes five names: others go around it. Set to the tier that serves.",
        ),
    ),
    *uses(
        "vllm.entrypoints.openai.responses.serving:OpenAIServingResponses",
        body(
            "_generate_with_builtin_tools",
            "api.held:HeldClient",
            "Later turns ask for a priority less; all of them ask the handler's client.",
        ),
    ),
    *uses(
        "vllm.entrypoints.generate.beam_search.online:BeamSearchOnlineMixin",
        body("beam_search", "api.held:HeldClient", "Names no priority to the handler's client."),
    ),
    *uses(
        "vllm.entrypoints.anthropic.protocol:",
        body("AnthropicUsage", "api.messages:_Usage", "Gets a field more."),
        body("AnthropicMessagesResponse", "api.messages:_Response", "Its usage is that one."),
    ),
    *uses(
        "vllm.entrypoints.anthropic.serving:AnthropicServingMessages",
        body(
            "message_stream_converter",
            "api.messages:_events",
            "Its first event says the usage; the tier is put in there.",
        ),
    ),
    *uses(
        "vllm.entrypoints.cohere.serving:CohereServingChatV2",
        body(
            "create_chat_v2",
            "api.priority:heard",
            "Goes through create_chat_completion with the request as it came by HTTP.",
        ),
        body(
            "_build_base_chat_completion",
            "api.priority:heard",
            "Names priority 0 for requests that name none.",
        ),
    ),
    *(
        dependency
        for module, handler, entry in (
            ("chat_completion.serving", "OpenAIServingChat", "create_chat_completion"),
            (
                "chat_completion.batch_serving",
                "OpenAIServingChatBatch",
                "create_batch_chat_completion",
            ),
            ("completion.serving", "OpenAIServingCompletion", "create_completion"),
            ("responses.serving", "OpenAIServingResponses", "create_responses"),
        )
        for dependency in uses(
            f"vllm.entrypoints.openai.{module}:{handler}",
            signature(entry, "api.serving:ENTRIES", "Requests enter by it and are checked first."),
        )
    ),
    *uses(
        "vllm.entrypoints.scale_out.token_in_token_out.serving:ServingTokens",
        signature(
            "serve_tokens", "api.serving:ENTRIES", "Requests enter by it and are checked first."
        ),
    ),
    *uses(
        "vllm.entrypoints.serve.engine.serving:BaseServing",
        signature(
            "create_error_response",
            "api.serving:_checked",
            "What a tenant is refused with; routes answer it with its status.",
        ),
    ),
    *uses(
        "vllm.entrypoints.serve.middleware.register:",
        body(
            "init_entrypoints_middleware",
            "cli:add_middleware",
            "Adds the classes of --middleware last, so that ours is the outermost.",
        ),
    ),
    *uses(
        "vllm.entrypoints.anthropic.serving:AnthropicServingMessages",
        body(
            "create_messages",
            "access.route_kind:_LISTED",
            "Goes through create_chat_completion, where the class is found out.",
        ),
    ),
)

ACCESS = (
    *uses(
        "vllm.v1.engine.async_llm:AsyncLLM",
        signature(
            "encode",
            "access.enforcement:Enforcement",
            "Replaced on a client, as generate is: handlers reach the engine by these alone.",
        ),
    ),
    *uses(
        "vllm.sampling_params:SamplingParams",
        attribute("n", "access.enforcement:Enforcement", "How many sequences a request is."),
        body("_verify_args", "api.sequences:sequences", "Refuses an n before it is counted."),
    ),
    *uses(
        "vllm.sampling_params:",
        body("_verify_num_sequences", "api.sequences:sequences", "The words of that refusal."),
    ),
    *uses(
        "vllm.entrypoints.generate.generative_scoring.serving:ServingGenerativeScoring",
        signature(
            "create_generative_scoring",
            "api.serving:ENTRIES",
            "Requests enter by it and are checked first.",
        ),
        attribute("engine_client", "api.serving:teach", "Knows the configuration."),
    ),
    *uses(
        "vllm.entrypoints.generate.generative_scoring.serving:GenerativeScoringRequest",
        attribute("items", "api.sequences:sequences", "Each is a sequence."),
    ),
    *uses(
        "vllm.entrypoints.generate.structured_decisions.serving:ServingStructuredDecisions",
        signature(
            "create_decision", "api.serving:ENTRIES", "Requests enter by it and are checked first."
        ),
        attribute("engine_client", "api.serving:teach", "Knows the configuration."),
        attribute("strategy", "api.sequences:sequences", "Knows how many sequences it takes."),
    ),
    *uses(
        "vllm.entrypoints.generate.structured_decisions.protocol:StructuredDecisionRequest",
        attribute("questions", "api.sequences:sequences", "Each is a sequence, or all are one."),
    ),
    *uses(
        "vllm.entrypoints.generate.structured_decisions.strategies:ReadStrategy",
        body("num_requests", "api.sequences:sequences", "Needs the number of questions only."),
    ),
    *uses(
        "vllm.entrypoints.generate.api_router:",
        body(
            "init_generate_state",
            "api.handlers:HANDLERS",
            "Leaves handlers in the state, of which ours finds one by name.",
        ),
    ),
    *uses(
        "vllm.entrypoints.generate.structured_decisions.api_router:",
        body("init_structured_decisions_state", "api.handlers:HANDLERS", "Leaves the other one."),
    ),
    *uses(
        "vllm.entrypoints.launchers.api_server.routers:",
        body(
            "register_api_routers",
            "access.route_kind:KINDS",
            "Which routes there are: what is not listed is closed.",
        ),
    ),
)

METRICS = (
    *uses(
        "vllm.entrypoints.serve.instrumentator.metrics:",
        attribute(
            "get_prometheus_registry",
            "seams.http:_get_prometheus_registry",
            "Imported there by name.",
        ),
        body(
            "attach_router",
            "api.exposition:with_priority_metrics",
            "Asks for the registry once, for /metrics, which shows all of it as text.",
        ),
    ),
    *uses(
        "vllm.v1.metrics.prometheus:",
        body(
            "get_prometheus_registry",
            "api.exposition:with_priority_metrics",
            "The process's registry, or one for several processes.",
        ),
    ),
    *uses(
        "prometheus_client.multiprocess:MultiProcessCollector",
        signature(
            "collect", "seams.http:_multiprocess_collect", "Our families are added to its own."
        ),
        signature(
            "__init__", "seams.http:_multiprocess_init", "It refuses a directory that is missing."
        ),
    ),
)

ROUTES = (
    *uses(
        "vllm.plugins:",
        signature(
            "load_endpoint_plugins",
            "seams.http:_load_endpoint_plugins",
            "Ours are added to those that it finds.",
        ),
    ),
    *uses(
        "vllm.plugins.endpoint_plugins.interface:",
        body(
            "EndpointPlugin",
            "status.endpoint:StatusEndpoint",
            "What an endpoint plugin must have.",
        ),
        body(
            "attach_endpoint_plugins",
            "endpoints:endpoints",
            "Asks for the plugins when the engine's configuration is known, and imports the "
            "function by name at that time.",
        ),
    ),
)

DEPENDENCIES: tuple[Dependency, ...] = (*HTTP, *ACCESS, *METRICS, *ROUTES)
