# SPDX-License-Identifier: Apache-2.0
"""The waiting queue: order by class, limits on what is visible, and nothing lost."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vllm import SamplingParams
from vllm.v1.request import Request, RequestStatus

from vllm_qllm.config import PriorityConfig
from vllm_qllm.engine.class_queue import ClassQueue

CONFIG = PriorityConfig.from_dict(
    {
        "classes": [
            {"name": "a", "max_priority": 0},
            {"name": "b", "max_priority": 10},
            {"name": "c"},
        ]
    }
)
ids = itertools.count()


def queue() -> ClassQueue:
    return ClassQueue(lambda r: CONFIG.level(r.priority), len(CONFIG.classes))


def request(priority: int, arrival: float = 0.0, preempted: bool = False) -> Request:
    made = Request(
        request_id=f"{next(ids):06}",
        prompt_token_ids=[1],
        sampling_params=SamplingParams(max_tokens=1),
        pooling_params=None,
        arrival_time=arrival,
        priority=priority,
    )
    if preempted:
        made.status = RequestStatus.PREEMPTED
    return made


def order(item: Request) -> tuple[int, bool, Request]:
    """By class, preempted ones first, then as vLLM."""
    return (CONFIG.level(item.priority), item.status != RequestStatus.PREEMPTED, item)


def drain(waiting: ClassQueue) -> list[Request]:
    out = []
    while waiting:
        first = waiting.peek_request()
        out.append(waiting.pop_request())
        assert out[-1] is first
    return out


requests = st.lists(
    st.tuples(st.integers(-5, 20), st.integers(0, 3), st.booleans()).map(
        lambda t: request(t[0], float(t[1]), t[2])
    ),
    max_size=20,
)


@given(requests)
def test_pops_by_class_preempted_first_then_priority_then_arrival(items: list[Request]) -> None:
    waiting = queue()
    for item in items:
        waiting.add_request(item)
    expected = sorted(
        items, key=lambda r: (*order(r)[:2], r.priority, r.arrival_time, r.request_id)
    )
    assert list(waiting) == expected
    assert drain(waiting) == expected
    assert len(waiting) == 0


@given(requests, st.integers(0, 2))
def test_hidden_classes_are_counted_but_not_seen(items: list[Request], shown: int) -> None:
    waiting = queue()
    waiting.prepend_requests(items)
    waiting.show(shown)
    visible = [r for r in items if CONFIG.level(r.priority) == shown]
    assert bool(waiting) == bool(visible)
    assert len(waiting) == len(items) == len(list(waiting))
    assert set(drain(waiting)) == set(visible)
    with pytest.raises(IndexError):
        waiting.pop_request()
    with pytest.raises(IndexError):
        waiting.peek_request()
    waiting.show()
    assert set(drain(waiting)) == set(items) - set(visible)


operations = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(-5, 20)),
        st.tuples(st.just("prepend"), st.integers(-5, 20)),
        st.tuples(st.just("preempted"), st.integers(-5, 20)),
        st.tuples(st.just("pop"), st.just(0)),
        st.tuples(st.just("remove"), st.integers(0, 30)),
        st.tuples(st.just("remove many"), st.integers(0, 30)),
        st.tuples(st.just("show"), st.integers(0, 3)),
    ),
    max_size=60,
)


@settings(max_examples=200)
@given(operations)
def test_is_a_sorted_list_with_a_filter(todo: list[tuple[str, int]]) -> None:
    """Against the plainest model there is, under any sequence of operations."""
    waiting, model, shown = queue(), [], {0, 1, 2}
    for name, value in todo:
        if name in ("add", "prepend", "preempted"):
            item = request(value, preempted=name == "preempted")
            (waiting.add_request if name == "add" else waiting.prepend_request)(item)
            model.append(item)
        elif name == "show":
            shown = {value} if value < 3 else {0, 1, 2}
            waiting.show(value if value < 3 else None)
        elif name == "pop":
            visible = sorted((r for r in model if CONFIG.level(r.priority) in shown), key=order)
            if visible:
                assert waiting.pop_request() is visible[0]
                model.remove(visible[0])
        elif model and name == "remove":
            item = model.pop(value % len(model))
            waiting.remove_request(item)
        elif name == "remove many":
            doomed = [r for i, r in enumerate(model) if i % 3 == value % 3]
            # Requests that are not queued are left alone, as vLLM relies upon.
            waiting.remove_requests([*doomed, request(0)])
            model = [r for r in model if r not in doomed]
        visible = [r for r in model if CONFIG.level(r.priority) in shown]
        assert bool(waiting) == bool(visible)
        assert list(waiting) == sorted(model, key=order)
        for level in range(3):
            of_class = [r for r in sorted(model, key=order) if CONFIG.level(r.priority) == level]
            assert waiting.count(level) == len(of_class)
            assert list(waiting.of(level)) == of_class
            assert waiting.first(level) is (of_class[0] if of_class else None)


def test_removing_what_is_not_there_is_an_error() -> None:
    waiting = queue()
    waiting.add_request(request(0))
    with pytest.raises(ValueError):
        waiting.remove_request(request(0))


@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
@pytest.mark.parametrize("status", [RequestStatus.FINISHED_ABORTED, RequestStatus.WAITING])
def test_a_preempted_request_is_found_although_its_status_has_changed(
    status: RequestStatus, many: bool
) -> None:
    waiting = queue()
    item, other = request(0, preempted=True), request(0)
    waiting.prepend_requests([item, other])
    item.status = status
    if many:
        waiting.remove_requests([item])
    else:
        waiting.remove_request(item)
    assert list(waiting) == [other]
    # The other way round: it is preempted now, and was not when it was added.
    other.status = RequestStatus.PREEMPTED
    assert waiting.peek_request() is other
    waiting.remove_request(other)
    assert not waiting and len(waiting) == 0
