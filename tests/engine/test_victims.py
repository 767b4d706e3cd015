# SPDX-License-Identifier: Apache-2.0
"""Who loses its blocks, in which order, and how often at most."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from vllm.v1.request import RequestStatus

from vllm_qllm.config import PriorityConfig
from vllm_qllm.engine.victims import Victims


def request(name: str, level: int, **more: Any) -> Any:
    known = {"num_output_tokens": 0, "max_tokens": 10, "arrival_time": 0.0, "num_preemptions": 0}
    known |= {"status": RequestStatus.RUNNING, "price": 0.0}
    return SimpleNamespace(request_id=name, level=level, **known | more)


class Held:
    """Held-back requests, of two blocks each, some of which are preempted."""

    def __init__(self, *requests: Any) -> None:
        self.held_back = list(requests)

    @staticmethod
    def level(request: Any) -> int:
        return int(request.level)

    def preempt_held(self, request: Any) -> None:
        self.held_back.remove(request)
        request.num_preemptions += 1


def victims_of(held: Held, **config: Any) -> Victims:
    requests: Any = held
    blocks: Any = SimpleNamespace(total=20, count=lambda request: 2)
    return Victims(PriorityConfig.from_dict(config), requests, blocks, lambda r: r.price)


def names(requests: list[Any]) -> list[str]:
    return [request.request_id for request in requests]


def test_the_least_urgent_the_cheapest_and_the_latest_go_first() -> None:
    held = Held(
        request("same", 1),
        request("nearly", 3, num_output_tokens=9),
        request("early", 3, arrival_time=1.0),
        request("late", 3, arrival_time=2.0),
        request("dear", 3, arrival_time=3.0, price=1.0),
        request("between", 2),
        request("waits", 3, status=RequestStatus.PREEMPTED),
    )
    order = ["late", "early", "dear", "between", "nearly"]
    assert names(victims_of(held, progress_cap=0.9).of(1)) == order


def test_nobody_loses_more_often_than_allowed() -> None:
    often, once = request("often", 1, num_preemptions=2), request("once", 1, num_preemptions=1)
    victims = victims_of(Held(often, once), max_preemptions=2)
    assert names(victims.of(0)) == ["once"]
    assert victims.may_lose_step(once)
    victims.lost_step("once")
    victims.lost_step("once")
    assert not victims.may_lose_step(once) and victims.may_lose_blocks(once)
    victims.finished(once)
    assert victims.may_lose_step(once)


def test_what_is_trimmed_is_not_counted() -> None:
    held = Held(*(request(f"r{i}", 1, arrival_time=float(i)) for i in range(5)))
    last = held.held_back[-1]
    victims = victims_of(held, park_fraction=0.3, max_preemptions=1)
    victims.trim(0)
    assert names(held.held_back) == ["r0", "r1", "r2"], "six of twenty blocks"
    assert last.num_preemptions == 1 and victims.may_lose_blocks(last)


def test_all_may_be_parked() -> None:
    held = Held(*(request(f"r{i}", 1) for i in range(15)))
    victims_of(held, park_fraction=1.0).trim(0)
    assert len(held.held_back) == 15
