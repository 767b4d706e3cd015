# SPDX-License-Identifier: Apache-2.0
"""Whatever arrives, every request ends once, and nothing is lost or made up."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.capacity.fleets import COST, POLICIES, arrivals, server, simulate
from vllm_qllm.capacity.cost import Cost
from vllm_qllm.capacity.fleet import Fleet
from vllm_qllm.capacity.replica import Replica
from vllm_qllm.capacity.workload import Arrival, Clients, Workload


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=10, deadline=None)
@given(
    load=arrivals(),
    replicas=st.integers(1, 4),
    blocks=st.integers(45, 120),
    routing=st.sampled_from(["round_robin", "least_outstanding", "class_aware"]),
    noise=st.sampled_from([0.0, 0.2]),
)
def test_every_request_ends_once_with_all_its_tokens(
    policy: str, load: list[Arrival], replicas: int, blocks: int, routing: str, noise: float
) -> None:
    cost = Cost.from_dict(COST.to_dict() | {"noise": noise})
    small = server(policy, kv_blocks=blocks)  # so few that requests lose theirs to others
    meter, ended = simulate(small, load, cost, replicas=replicas, routing=routing)
    assert len(ended) == len(load)
    for request, end in ended.values():
        assert request.emitted == request.output
        assert request.blocks == 0
        assert request.sent + COST.overhead_s <= request.arrived <= request.started
        assert request.started < request.first <= end
    for level in (0, 1):
        mine = [row for row in load if row[1] == level]
        assert meter.sent[level] == meter.done[level] == len(mine)
        assert meter.emitted[level] == sum(output for *_, output in mine)
        # Without a window all of it is counted, once.
        assert meter.work[level] == pytest.approx(sum(row[2] + row[3] for row in mine))


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=15, deadline=None)
@given(load=arrivals(), blocks=st.integers(45, 120))
def test_nobody_is_idle_while_there_is_work(policy: str, load: list[Arrival], blocks: int) -> None:
    fleet = Fleet(server(policy, kv_blocks=blocks), COST)
    (replica,) = fleet._replicas
    looked = 0

    def checked(change):  # type: ignore[no-untyped-def]
        def call(*arguments: object) -> None:
            nonlocal looked
            change(*arguments)
            looked += 1
            busy = replica.next_event < float("inf")
            assert busy == (sum(replica.outstanding) > 0)

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replica, "event", checked(replica.event), raising=True)
        patch.setattr(replica, "arrive", checked(replica.arrive), raising=True)
        fleet.run(Workload(tuple(load)))
    assert looked >= len(load)
    scheduler = replica._scheduler
    assert scheduler.blocks.free == scheduler.blocks.total
    assert scheduler.in_steps == scheduler.admitted() == scheduler.waiting() == 0


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=10, deadline=None)
@given(load=arrivals(), seed=st.integers(0, 5))
def test_equal_seeds_give_equal_results(policy: str, load: list[Arrival], seed: int) -> None:
    noisy = Cost.from_dict(COST.to_dict() | {"noise": 0.2})
    clients = (Clients(1, 2, ((300, 20), (50, 5))),)

    def ends(seed: int) -> list[float]:
        _, ended = simulate(
            server(policy), load, noisy, clients, seconds=3.0, replicas=2, seed=seed
        )
        return [end for _, end in ended.values()]

    assert ends(seed) == ends(seed)
    assert ends(seed) != ends(seed + 1)


@pytest.mark.parametrize(
    ("policy", "config"),
    [("fcfs", None), ("priority", None), ("strict", {"ride_slowdown": 1}), ("step", None)],
)
@settings(max_examples=15, deadline=None)
@given(load=arrivals(), blocks=st.integers(60, 256))
def test_runs_of_like_steps_end_as_single_steps_do(
    policy: str, config: dict[str, object] | None, load: list[Arrival], blocks: int
) -> None:
    """A run of steps stands for as many steps, each decided by itself."""
    # How many ride follows from measured steps, which a run averages.
    config = config or ({"ride_slowdown": 1} if policy == "step" else None)
    small = server(policy, config, kv_blocks=blocks)
    _, runs = simulate(small, load)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Replica, "_alike", lambda self, batch: 1)
        _, single = simulate(small, load)
    for number, (request, end) in single.items():
        assert runs[number][1] == pytest.approx(end, rel=1e-9)
        assert runs[number][0].first == pytest.approx(request.first, rel=1e-9)


@settings(max_examples=10, deadline=None)
@given(seconds=st.floats(1.0, 8.0), clients=st.integers(1, 5))
def test_a_closed_loop_has_one_request_a_client(seconds: float, clients: int) -> None:
    loop = (Clients(1, clients, ((100, 10), (30, 4), (200, 1))),)
    _, ended = simulate(server("strict"), clients=loop, seconds=seconds)
    changes: Counter[float] = Counter()
    for request, end in ended.values():
        changes[request.sent] += 1
        changes[end] -= 1
    in_flight = 0
    for at in sorted(changes):
        in_flight += changes[at]
        assert in_flight == clients or at >= seconds
    assert all(request.sent < seconds for request, _ in ended.values())


def test_what_is_too_long_is_refused_and_counted() -> None:
    meter, ended = simulate(server("strict"), [(0.0, 0, 5000, 1), (0.0, 0, 10, 2)])
    assert meter.refused == [1, 0]
    assert len(ended) == 1
