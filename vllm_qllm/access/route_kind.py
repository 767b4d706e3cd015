# SPDX-License-Identifier: Apache-2.0
"""What kind of route a request goes to, which says who may use it and who finds out its class.

A route that is not listed is for operators: what vLLM adds is closed until somebody has looked.
Each is listed as :func:`vllm_qllm.access.route.route_of` names it.
"""

from __future__ import annotations

from enum import Enum

from vllm_qllm.access.route import OTHER_METHOD, path_of


class RouteKind(Enum):
    """Kinds of routes."""

    OPEN = "no key is needed: for probes, Prometheus and readers of the documentation"
    TENANT = "any tenant's: nothing is generated"
    CLASS = "any tenant's: the handler of the request finds out its class"
    DEFAULT = "any tenant's: nothing in the request says a class, so it is the tenant's default"
    OPERATOR = "changes or stops the server, or tells of it, or is not known here"


_LISTED = {
    # The status page itself holds nothing; what it shows it has to ask for.
    RouteKind.OPEN: """
        GET /health  GET /ping  POST /ping  GET /metrics  GET /version  GET /load
        GET /docs  GET /docs/oauth2-redirect  GET /redoc  GET /openapi.json  GET /qllm  GET /qllm/
    """,
    RouteKind.TENANT: """
        GET /v1/models  POST /tokenize  POST /detokenize  POST /v1/messages/count_tokens
        GET /v1/responses/{response_id}  POST /v1/responses/{response_id}/cancel
    """,
    RouteKind.CLASS: """
        POST /v1/chat/completions  POST /v1/chat/completions/batch  POST /v1/completions
        POST /v1/responses  POST /v1/messages  POST /cohere/v2/chat  POST /inference/v1/generate
        POST /invocations  POST /generative_scoring  POST /v1/systemone
    """,
    RouteKind.DEFAULT: """
        POST /v1/audio/transcriptions  POST /v1/audio/translations  WEBSOCKET /v1/realtime
    """,
    RouteKind.OPERATOR: """
        GET /qllm/status  GET /qllm/timeline
        GET /server_info  GET /kv_event_sources  GET /tokenizer_info  BELOW /static
        BELOW /metrics
        POST /v1/load_lora_adapter  POST /v1/unload_lora_adapter
        POST /adapters  DELETE /adapters/{adapter_name}
        POST /abort_requests  POST /inference/v1/abort_requests
        POST /pause  POST /resume  GET /is_paused  POST /sleep  POST /wake_up  GET /is_sleeping
        POST /release_kv_cache_memory  POST /collective_rpc
        POST /reset_prefix_cache  POST /reset_mm_cache  POST /reset_encoder_cache
        POST /start_profile  POST /stop_profile
        POST /scale_elastic_ep  POST /is_scaling_elastic_ep
        POST /fault_tolerance/apply  GET /fault_tolerance/status
        POST /init_weight_transfer_engine  POST /shutdown_weight_transfer_engine
        POST /start_weight_update  POST /start_draft_weight_update  POST /update_weights
        POST /finish_weight_update  POST /update_weight_version  GET /weight_info
        POST /weight_checker  GET /get_world_size
        POST /v1/chat/completions/render  POST /v1/chat/completions/derender
        POST /v1/completions/render  POST /v1/completions/derender
        POST /v1/responses/render  POST /v1/messages/render  POST /cohere/v2/chat/render
        POST /pooling  POST /classify  POST /v1/embeddings  POST /v2/embed  POST /score
        POST /v1/score  POST /rerank  POST /v1/rerank  POST /v2/rerank
    """,
}
KINDS = {
    f"{method} {path}": kind
    for kind, routes in _LISTED.items()
    for method, path in zip(routes.split()[::2], routes.split()[1::2], strict=True)
}
_PATHS = {path_of(route) for route in KINDS}


def kind_of(route: str) -> RouteKind:
    """The kind of a route."""
    if route.startswith(f"{OTHER_METHOD} "):
        return RouteKind.TENANT  # it is answered with 405, which strangers need not know
    return KINDS.get(route, RouteKind.OPERATOR)


def shown(route: str) -> str:
    """The path for a log: one that is not listed may hold anything."""
    path = path_of(route)
    return path if path in _PATHS else "(other)"
