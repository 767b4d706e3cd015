# SPDX-License-Identifier: Apache-2.0
"""Teaches vLLM's request handlers priorities, service tiers and tenants, when a policy is on."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

from vllm.exceptions import VLLMValidationError

from vllm_qllm.access.refusal import Refusal
from vllm_qllm.access.route import path_of
from vllm_qllm.access.tenant_request import tenant_request_of
from vllm_qllm.api import draining, log_probabilities, refused, tier
from vllm_qllm.api.held import held
from vllm_qllm.api.notices import NOTICES
from vllm_qllm.api.priority import UnclearError, asked_of, heard, leaves_it_open
from vllm_qllm.api.program import check_program
from vllm_qllm.api.said import EXTRA, FIELDS, Said
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
# Other APIs', which go on to the first of these.
TRANSLATED = ("create_messages", "create_chat_v2")
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
    config = PriorityConfig.from_dict(data)
    draining.announce(handler.engine_client)
    refused.explain(handler.engine_client)
    log_probabilities.in_pieces(handler.engine_client, config)
    for name in ENTRIES:
        if hasattr(handler, name):
            setattr(handler, name, _checked(handler, name, config))
    if hasattr(handler, "create_messages"):
        from vllm_qllm.api.messages import with_tier

        handler.create_messages = with_tier(handler.create_messages)
    for name in TRANSLATED:
        if hasattr(handler, name):
            setattr(handler, name, _in_words(handler, getattr(handler, name)))


def _checked(handler: Any, name: str, config: PriorityConfig) -> Create:
    create = getattr(type(handler), name)

    async def answered(request: Any, raw_request: Any) -> Any:
        # Before anything is done for the request.
        body = await _body(request, raw_request)
        said = heard(request, body)
        asked = asked_of(config, said, raw_request)
        check_program(request)
        granted = _granted(handler, config, request, said, asked, raw_request)
        if isinstance(granted, Refusal):
            return handler.create_error_response(
                granted.message,
                granted.type_at(_path(raw_request)),
                HTTPStatus(granted.status),
                granted.param,
            )
        request.priority = granted
        _classed(handler, config.level(granted), request)
        _notice(config, body, asked, granted, raw_request)
        serving = tier.serving_tier(config, granted, said.service_tier)
        tier.remember(raw_request, serving)
        own = functools.partial(create, held(handler, granted))
        return await tier.answer(own, request, raw_request, serving)

    @functools.wraps(create)
    async def checked(request: Any, raw_request: Any = None) -> Any:
        work = answered(request, raw_request)
        served = passage.get()
        # vLLM runs handlers in tasks of their own.
        return await (work if served is None else served.served(work))

    return checked


def _in_words(handler: Any, create: Create) -> Create:
    @functools.wraps(create)
    async def in_words(request: Any, raw_request: Any = None) -> Any:
        try:
            return await create(request, raw_request)
        except UnclearError as error:
            # Their routes would write a stack trace for it.
            return handler.create_error_response(error)

    return in_words


async def _body(request: Any, raw_request: Any) -> Mapping[str, Any]:
    """What the client has sent: a handler may get what another API's request was made into."""
    if raw_request is not None:
        try:
            body = await raw_request.json()  # has been parsed already, and is kept
        except (ValueError, RuntimeError):
            body = None
        if isinstance(body, Mapping):
            return body
    # A line of run-batch's file.
    named = request.model_fields_set
    return {name: getattr(request, name, None) for name in (*FIELDS, EXTRA) if name in named}


def _classed(handler: Any, level: int, request: Any) -> None:
    """Tell what lies between here and the engine the class of a request.

    Raises:
        VLLMValidationError: it asks for more sequences than its class may.
    """
    served = passage.get()
    if served is None:  # a line of run-batch's file
        return
    served.classed(level)
    count = sequences(request, handler)
    if problem := served.limits.sequences_problem(level, count, of_a_prompt(request)):
        raise VLLMValidationError(problem, parameter="n", value=count)


def _path(raw_request: Any) -> str:
    tenant_request = tenant_request_of(raw_request)
    return raw_request.url.path if tenant_request is None else path_of(tenant_request.route)


def _granted(
    handler: Any,
    config: PriorityConfig,
    request: Any,
    said: Said,
    asked: int | None,
    raw_request: Any,
) -> int | Refusal:
    if config.tenants is None or raw_request is None:
        return asked or 0
    tenant_request = tenant_request_of(raw_request)
    if tenant_request is None:
        return Refusal("no_key", "the server takes requests of tenants only, and this one has none")
    if declared(request, "background"):
        text = "background is true; allowed: false, as limits hold while a request is answered"
        return tenant_request.refuse(Refusal("background", text, param="background"))
    if leaves_it_open(said, raw_request):
        asked = None
    return tenant_request.ask(asked, sequences(request, handler))


def _notice(
    config: PriorityConfig,
    body: Mapping[str, Any],
    asked: int | None,
    granted: int,
    raw_request: Any,
) -> None:
    tenant_request = None if raw_request is None else tenant_request_of(raw_request)
    tenant = None if tenant_request is None else tenant_request.name
    NOTICES.not_read(body, tenant)
    NOTICES.asks(asked, config.classes[config.level(granted)].name, tenant)
