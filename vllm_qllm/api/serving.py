# SPDX-License-Identifier: Apache-2.0
"""Teaches vLLM's request handlers priorities, service tiers and tenants, when a policy is on."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from vllm.exceptions import VLLMValidationError

from vllm_qllm.access.refusal import Refusal
from vllm_qllm.access.route import path_of
from vllm_qllm.access.visit import visit_of
from vllm_qllm.api import draining, tier
from vllm_qllm.api.priority import asked_of, priority_of, refuse_beam_search
from vllm_qllm.api.sequences import declared, of_a_prompt, sequences
from vllm_qllm.config import PriorityConfig, carried
from vllm_qllm.intake.passage import passage

# The methods by which requests enter the handlers; a handler has one or two of them.
ENTRIES = (
    "create_chat_completion",
    "create_batch_chat_completion",
    "create_completion",
    "create_responses",
    "serve_tokens",
    "create_generative_scoring",
    "create_decision",
)
Create = Callable[[Any, Any], Awaitable[Any]]


def teach(handler: Any) -> None:
    """Replace the handler's own lookup of a priority, on this object only.

    Args:
        handler: a ``GenerateBaseServing``, or one of those that :mod:`vllm_qllm.api.handlers`
            finds; it knows its ``engine_client``.
    """
    data = carried(getattr(handler.engine_client, "vllm_config", None))
    if data is None:
        return
    draining.announce(handler.engine_client)
    config = PriorityConfig.from_dict(data)
    handler._get_priority = functools.partial(_priority, config)
    for name in ENTRIES:
        if hasattr(handler, name):
            setattr(handler, name, _checked(handler, getattr(handler, name), config))


def _priority(config: PriorityConfig, request: Any, raw_request: Any = None) -> int:
    """What vLLM asks for when a request goes to the engine: the header, which it may name, again.

    With tenants it is what was granted, whatever the request says.
    """
    if config.tenants is None or raw_request is None:
        return priority_of(config, request, raw_request)
    visit = visit_of(raw_request)
    if visit is None:
        raise RuntimeError("a request came to the engine without passing the tenants' middleware")
    return visit.priority


def _checked(handler: Any, create: Create, config: PriorityConfig) -> Create:
    @functools.wraps(create)
    async def checked(request: Any, raw_request: Any = None) -> Any:
        asked = getattr(request, "service_tier", None)
        # Before anything is done for the request; and batches of chats read the field alone.
        if config.tenants is None or raw_request is None:  # None: a line of run-batch's file
            request.priority = priority_of(config, request, raw_request)
        else:
            granted = _granted(handler, config, request, raw_request)
            if isinstance(granted, Refusal):
                return handler.create_error_response(
                    granted.message,
                    granted.type_at(_path(raw_request)),
                    HTTPStatus(granted.status),
                    granted.param,
                )
            request.priority = granted
        _classed(handler, config.rank(request.priority), request)
        serving = tier.serving_tier(config, request.priority, asked)
        return await tier.answer(create, request, raw_request, serving)

    return checked


def _classed(handler: Any, rank: int, request: Any) -> None:
    """Tell what lies between here and the engine the class of a request.

    Raises:
        VLLMValidationError: it asks for more sequences than its class may.
    """
    served = passage.get()
    if served is None:  # a line of run-batch's file
        return
    served.classed(rank)
    count = sequences(request, handler)
    if problem := served.limits.sequences_problem(rank, count, of_a_prompt(request)):
        raise VLLMValidationError(problem, parameter="n", value=count)


def _path(raw_request: Any) -> str:
    visit = visit_of(raw_request)
    return raw_request.url.path if visit is None else path_of(visit.route)


def _granted(handler: Any, config: PriorityConfig, request: Any, raw_request: Any) -> int | Refusal:
    visit = visit_of(raw_request)
    if visit is None:
        return Refusal("no_key", "the server takes requests of tenants only, and this one has none")
    asked = asked_of(config, request, raw_request, auto_asks=False)
    if declared(request, "background"):
        text = "background is true; allowed: false, as limits hold while a request is answered"
        return visit.refuse(Refusal("background", text, param="background"))
    granted = visit.ask(asked, sequences(request, handler))
    if not isinstance(granted, Refusal):
        refuse_beam_search(request, raw_request, granted)
    return granted
