# SPDX-License-Identifier: Apache-2.0
"""Noticing arrivals on a live queue: nothing is lost and nothing is counted twice."""

from __future__ import annotations

import queue
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from vllm.v1.engine import EngineCoreRequestType as Type

from vllm_qllm.engine.arrivals import Arrivals

OTHERS = [t for t in Type if t != Type.ADD]


def item(level: int, type_: Type = Type.ADD) -> tuple[Type, Any]:
    payload = (SimpleNamespace(priority=level), 0)
    return (type_, payload if type_ == Type.ADD else ["some request"])


def watch(source: queue.Queue[Any], arrived: list[int], classes: int = 3) -> Arrivals:
    return Arrivals(source, classes, lambda request: request.priority, arrived.append)


def test_what_is_queued_already_is_pending() -> None:
    source: queue.Queue[Any] = queue.Queue()
    for level in (0, 2, 2):
        source.put(item(level))
    source.put(item(0, Type.ABORT))
    arrived: list[int] = []
    arrivals = watch(source, arrived)
    assert arrivals.pending == [1, 0, 2]
    assert arrived == []  # no step has started since, so there is nothing to suspend
    while not source.empty():
        source.get()
    assert arrivals.pending == [0, 0, 0]


def test_pending_until_taken() -> None:
    arrived: list[int] = []
    arrivals = watch(queue.Queue(), arrived)
    arrivals.queue.put_nowait(item(1))
    arrivals.queue.put(item(0))
    assert (arrivals.pending, arrived) == ([1, 1, 0], [1, 0])
    assert arrivals.queue.get_nowait()[1][0].priority == 1
    assert arrivals.pending == [1, 0, 0]
    assert arrivals.queue.get(timeout=1)[1][0].priority == 0
    assert (arrivals.pending, arrived) == ([0, 0, 0], [1, 0])
    with pytest.raises(queue.Empty):
        arrivals.queue.get_nowait()


@pytest.mark.parametrize("type_", OTHERS, ids=lambda t: t.name)
def test_only_added_requests_are_arrivals(type_: Type) -> None:
    arrived: list[int] = []
    arrivals = watch(queue.Queue(), arrived)
    arrivals.queue.put(item(0, type_))
    assert (arrivals.pending, arrived) == ([0, 0, 0], [])
    assert arrivals.queue.get() == item(0, type_)
    assert arrivals.pending == [0, 0, 0]


def test_a_request_is_pending_before_its_arrival_is_told() -> None:
    """Whoever starts a step and looks at ``pending`` afterwards must not miss it."""
    seen: list[list[int]] = []
    arrivals: Arrivals
    arrivals = Arrivals(
        queue.Queue(), 2, lambda r: r.priority, lambda level: seen.append(list(arrivals.pending))
    )
    arrivals.queue.put(item(0))
    assert seen == [[1, 0]]


def test_an_engine_that_waits_is_woken() -> None:
    arrivals = watch(queue.Queue(), [])
    got: list[Any] = []
    engine = threading.Thread(target=lambda: got.append(arrivals.queue.get(timeout=10)))
    engine.start()
    arrivals.queue.put(item(1))
    engine.join(10)
    assert len(got) == 1 and arrivals.pending == [0, 0, 0]


def test_threads_lose_nothing() -> None:
    """Two IO threads put, the engine takes, attached in the middle of it."""
    source: queue.Queue[Any] = queue.Queue()
    per_thread, taken, arrived = 3000, [], []
    attached = threading.Event()

    def put(offset: int) -> None:
        for i in range(per_thread):
            if i == per_thread // 3:
                attached.wait(10)
            type_ = Type.ABORT if i % 7 == 0 else Type.ADD
            source.put(item((i + offset) % 3, type_))

    def take() -> None:
        taken.extend(source.get(timeout=10) for _ in range(2 * per_thread))

    threads = [threading.Thread(target=put, args=(n,)) for n in (0, 1)]
    threads.append(threading.Thread(target=take))
    for thread in threads:
        thread.start()
    arrivals = watch(source, arrived)
    attached.set()
    for thread in threads:
        thread.join(30)
    added = sum(type_ == Type.ADD for type_, _ in taken)
    assert len(taken) == 2 * per_thread
    assert arrivals.pending == [0, 0, 0]
    # Those before the attachment are not told; the last two thirds are, each once.
    assert added * 2 // 3 - 2 <= len(arrived) <= added
