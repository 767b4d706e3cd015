# SPDX-License-Identifier: Apache-2.0
"""Nobody reaches the engine who was not asked for, with more than was granted, or more urgently."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest
from vllm.pooling_params import PoolingParams
from vllm.sampling_params import SamplingParams
from vllm.v1.request import Request

from tests.access.access_controls import config_with, tenant_request
from vllm_qllm.access.access_control import AccessControl
from vllm_qllm.access.enforcement import RefusedError, current_request, enforce
from vllm_qllm.access.tenant_request import TenantRequest
from vllm_qllm.engine.programs import program_of

CHAT, AGENT, BATCH = "chat", "agent", "batch"
TENANTS = {
    "all": {"classes": {CHAT: {}, AGENT: {}, BATCH: {}}},
    "middle": {"classes": {AGENT: {"max_concurrent": 2}}},
    "lowered": {"classes": {BATCH: {}}, "above": "lower"},
    "bounded": {"classes": {AGENT: {"min_priority": 4}}},
}


class Engine:
    """A client of an engine, which says with what priority it was asked and who is in it."""

    def __init__(self) -> None:
        self.inside, self.most, self.aborted = 0, 0, 0
        self.params: list[SamplingParams] = []
        self.open = asyncio.Event()

    async def generate(
        self, prompt: Any, sampling_params: Any, request_id: str, *, priority: int = 0
    ) -> AsyncGenerator[int, None]:
        self.params.append(sampling_params)
        self.inside += sampling_params.n
        self.most = max(self.most, self.inside)
        try:
            yield priority
            await self.open.wait()
            yield priority
        except GeneratorExit:
            self.aborted += 1
            raise
        finally:
            self.inside -= sampling_params.n

    async def encode(
        self, prompt: Any, pooling_params: Any, request_id: str, lora: Any = None, priority: int = 0
    ) -> AsyncGenerator[int, None]:
        yield priority


@pytest.fixture(scope="module")
def access(tmp_path_factory: pytest.TempPathFactory) -> AccessControl:
    return AccessControl(config_with(tmp_path_factory.mktemp("access"), TENANTS), None)


def served(who: TenantRequest | None, ask: Callable[[Any], Any]) -> tuple[Any, Engine]:
    """What a handler gets that serves somebody's request."""

    async def run() -> tuple[Any, Engine]:
        engine = Engine()
        enforce(engine)
        enforce(engine)  # it has several API handlers
        token = current_request.set(who)
        try:
            return await ask(engine), engine
        finally:
            current_request.reset(token)

    return asyncio.run(run())


async def generate(engine: Any, n: int = 1, extra: Any = None, **fields: Any) -> int:
    """The first output; nobody reads the others."""
    outputs = engine.generate("hi", SamplingParams(n=n, extra_args=extra), "id", **fields)
    async for output in outputs:
        await outputs.aclose()
        return int(output)
    raise AssertionError


def test_without_a_tenant_nothing_is_served() -> None:
    for ask in (generate, lambda e: anext(e.encode("hi", PoolingParams(), "id"))):
        with pytest.raises(RefusedError) as refused:
            served(None, ask)
        assert refused.value.http_status == 401


@pytest.mark.parametrize(
    ("tenant", "wanted", "given"),
    [
        ("all", -9, -9),
        ("all", 50, 50),
        ("middle", -100, "class"),
        ("middle", 0, 0),
        ("lowered", -100, 10),
        ("bounded", -1, "priority"),
        ("bounded", 5, 5),
    ],
)
def test_a_handler_that_did_not_ask_is_asked_for(
    access: AccessControl, tenant: str, wanted: int, given: int | str
) -> None:
    who = tenant_request(access, tenant)
    if isinstance(given, str):
        with pytest.raises(RefusedError) as refused:
            served(who, lambda e: generate(e, priority=wanted))
        assert refused.value.http_status == 403
        assert who.refusal is not None and who.refusal.reason == given
    else:
        got, engine = served(who, lambda e: generate(e, priority=wanted))
        assert (got, engine.aborted) == (given, 1)
        # By position, too.
        who.close()
        again = tenant_request(access, tenant)
        pooled = lambda e: anext(e.encode("hi", PoolingParams(), "id", None, wanted))  # noqa: E731
        assert served(again, pooled)[0] == given
        again.close()
    who.close()


def test_what_was_granted_stands_whatever_the_handler_says(access: AccessControl) -> None:
    """Later turns of a request with tools ask for one priority less each."""
    who = tenant_request(access, "all")
    assert who.ask(10, 1) == 10

    async def turns(engine: Any) -> list[int]:
        return [await generate(engine, priority=10 - turn) for turn in range(3)]

    assert served(who, turns)[0] == [10, 10, 10]
    # One after the other: it holds one place.
    assert access.limiter.numbers("all", BATCH)[0] == 1
    who.close()


def test_what_was_not_asked_for_is_counted_and_limited(access: AccessControl) -> None:
    async def held(engine: Any) -> list[Any]:
        # As a batch of items comes: all at once, and each is held until it is answered.
        outputs = [engine.generate("hi", SamplingParams(), str(i)) for i in range(400)]
        firsts = await asyncio.gather(*(anext(o) for o in outputs), return_exceptions=True)
        assert access.limiter.numbers("middle", AGENT)[0] == 2
        await asyncio.gather(*(o.aclose() for o in outputs))
        return firsts

    who = tenant_request(access, "middle")
    got, engine = served(who, held)
    assert engine.most == 2 and engine.inside == 0
    refused = [one for one in got if isinstance(one, RefusedError)]
    assert len(refused) == 398 and {one.http_status for one in refused} == {400}
    who.close()
    # What one request asks for at a time counts, not what it asks for in all.
    who = tenant_request(access, "middle")

    async def turns(engine: Any) -> int:
        return sum([await generate(engine, n=2) == 0 for _ in range(5)])

    assert served(who, turns)[0] == 5
    who.close()
    assert access.limiter.numbers("middle", AGENT)[0] == 0


def test_after_the_answer_nothing_more_is_served(access: AccessControl) -> None:
    """A task that outlives its request holds no place any more."""
    who = tenant_request(access, "all")
    who.ask(0, 1)
    who.close()
    with pytest.raises(RefusedError, match="answered already"):
        served(who, generate)


# What clients may send as vllm_xargs; with what comes to the engine for another tenant among them.
NAMES: list[Any] = [
    "p",
    7,
    ["all", "p"],
    ["middle", "p"],
    ["all", ["all", "p"]],
    "['all', 'p']",
    [],
]


def test_a_program_is_its_tenant_s_whatever_its_name(access: AccessControl) -> None:
    """Nobody can name what another tenant has named."""
    found: dict[str, set[str]] = {}
    for tenant in TENANTS:
        for name in NAMES:
            who = tenant_request(access, tenant)
            given = {"program_id": name, "k": 1}
            _, engine = served(who, lambda e, given=given: generate(e, 1, given, priority=5))
            who.close()
            (params,) = engine.params
            assert given == {"program_id": name, "k": 1}, "what the handler has is as it was"
            assert params.extra_args == {"program_id": params.extra_args["program_id"], "k": 1}
            request = Request("id", [1], params, None)
            found.setdefault(str(program_of(request, 0)), set()).add(tenant)
    assert len(found) == len(TENANTS) * len(NAMES)


def test_who_names_no_program_gets_none(access: AccessControl) -> None:
    for extra in (None, {}, {"k": 1}, {"program_id": None}):
        who = tenant_request(access, "all")
        _, engine = served(who, lambda e, extra=extra: generate(e, extra=extra))
        who.close()
        assert engine.params[0].extra_args == extra
        assert program_of(Request("id", [1], engine.params[0], None), 0) is None
