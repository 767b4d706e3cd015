# SPDX-License-Identifier: Apache-2.0
"""Grammars are compiled by class, whatever else is being compiled."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError

import pytest
from vllm.v1.request import Request, RequestStatus

from tests.engine.grammars import Anything, request
from vllm_qllm.config import PriorityConfig
from vllm_qllm.engine.grammar_limits import GrammarLimits, GrammarRefusedError
from vllm_qllm.engine.grammar_pool import GrammarPool

SECONDS = 30.0  # until something that should come is missed
URGENT, AGENT, BATCH = 0, 5, 11
CLASSES = [
    {"name": "chat", "max_priority": 0},
    {"name": "agent", "max_priority": 10},
    {"name": "batch", "grammar_bytes": 100},
]


class Compiler:
    """Compiles what it is given, in the order that ``compiled`` shows; some of it takes long."""

    def __init__(self) -> None:
        self.compiled: list[Request] = []
        self.begun = threading.Semaphore(0)
        self.go_on = threading.Event()

    def at_once(self, request: Request) -> Anything:
        self.compiled.append(request)
        return Anything()

    def slowly(self, request: Request) -> Anything:
        self.begun.release()
        assert self.go_on.wait(SECONDS)
        return self.at_once(request)


@pytest.fixture
def compiler() -> Iterator[Compiler]:
    compiler = Compiler()
    yield compiler
    compiler.go_on.set()


@pytest.fixture
def pool_of() -> Iterator[Callable[..., GrammarPool]]:
    pools: list[GrammarPool] = []

    def pool_of(threads: int = 1, classes: int = 3) -> GrammarPool:
        data = [*CLASSES[: classes - 1], {"name": "last", "grammar_bytes": 100}]
        config = PriorityConfig.from_dict({"classes": data})

        def level(request: Request) -> int:
            return config.level(request.priority)

        pools.append(GrammarPool(level, classes, threads, GrammarLimits(config, level)))
        return pools[-1]

    yield pool_of
    for pool in pools:
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("classes", [2, 3])
def test_no_class_waits_for_a_less_urgent_one(
    pool_of: Callable[..., GrammarPool], compiler: Compiler, threads: int, classes: int
) -> None:
    pool = pool_of(threads, classes)
    # The least urgent class first, with more than all threads could take.
    for level in reversed(range(1, classes)):
        priority = (URGENT, AGENT, BATCH)[level]
        hogs = [pool.submit(compiler.slowly, request(priority)) for _ in range(3 * threads + 3)]
        assert compiler.begun.acquire(timeout=SECONDS)
        more_urgent = (URGENT, AGENT)[level - 1]
        pool.submit(compiler.at_once, request(more_urgent)).result(SECONDS)
        assert not any(hog.done() for hog in hogs)


def test_what_waits_is_taken_by_class_and_then_in_order(
    pool_of: Callable[..., GrammarPool], compiler: Compiler
) -> None:
    pool = pool_of()
    for priority in (BATCH, AGENT):  # both threads of these classes are busy
        pool.submit(compiler.slowly, request(priority))
        assert compiler.begun.acquire(timeout=SECONDS)
    queued = [request(priority) for priority in (BATCH, BATCH, AGENT, AGENT)]
    waiting = [pool.submit(compiler.at_once, one) for one in queued]
    compiler.go_on.set()
    for one in waiting:
        one.result(SECONDS)
    order = [one for one in compiler.compiled if one in queued]
    assert [one for one in order if one.priority == AGENT] == queued[2:]
    assert [one for one in order if one.priority == BATCH] == queued[:2]


def test_a_grammar_of_a_client_that_has_gone_is_not_compiled(
    pool_of: Callable[..., GrammarPool], compiler: Compiler
) -> None:
    pool = pool_of(classes=2)
    pool.submit(compiler.slowly, request(BATCH))
    assert compiler.begun.acquire(timeout=SECONDS)
    gone, still_there = request(BATCH), request(BATCH)
    futures = [pool.submit(compiler.at_once, one) for one in (gone, still_there)]
    gone.status = RequestStatus.FINISHED_ABORTED
    compiler.go_on.set()
    futures[1].result(SECONDS)
    with pytest.raises(CancelledError):
        futures[0].result(SECONDS)
    assert gone not in compiler.compiled


def test_a_large_grammar_is_refused_where_it_is_less_urgent(
    pool_of: Callable[..., GrammarPool], compiler: Compiler
) -> None:
    pool = pool_of(classes=2)
    fits, large = "a" * 100, "a" * 99 + "ä"
    pool.submit(compiler.at_once, request(BATCH, fits)).result(SECONDS)
    pool.submit(compiler.at_once, request(URGENT, large)).result(SECONDS)
    with pytest.raises(GrammarRefusedError, match=r"101 bytes.*at most 100.*last.*grammar_bytes"):
        pool.submit(compiler.at_once, request(BATCH, large)).result(SECONDS)
    assert len(compiler.compiled) == 2


def test_a_failed_compilation_is_its_requests_alone(
    pool_of: Callable[..., GrammarPool], compiler: Compiler
) -> None:
    pool = pool_of()

    def fails(request: Request) -> Anything:
        raise SystemExit("compiler")

    for priority in (URGENT, AGENT, BATCH):
        with pytest.raises(SystemExit):
            pool.submit(fails, request(priority)).result(SECONDS)
        pool.submit(compiler.at_once, request(priority)).result(SECONDS)


def test_a_compilation_without_end_does_not_keep_the_engine(
    pool_of: Callable[..., GrammarPool], compiler: Compiler
) -> None:
    pool = pool_of()
    running = pool.submit(compiler.slowly, request(BATCH))
    assert compiler.begun.acquire(timeout=SECONDS)
    queued = pool.submit(compiler.at_once, request(BATCH))
    pool.shutdown(wait=True, cancel_futures=True)
    assert queued.cancelled() and not running.done()
    with pytest.raises(RuntimeError, match="shutdown"):
        pool.submit(compiler.at_once, request(URGENT))
