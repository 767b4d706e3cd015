# SPDX-License-Identifier: Apache-2.0
"""What the policies are for shows in the simulation, and its bounds hold there."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.capacity.fleets import BE, COST, LS, server, simulate
from vllm_qllm.capacity.cost import Cost
from vllm_qllm.capacity.workload import Arrival, Clients

PATIENT = {
    "yield_points": "layer",
    "classes": [
        {"name": "chat", "max_priority": 0},
        {"name": "batch", "max_wait_ms": 3_600_000},
    ],
}


@settings(max_examples=25, deadline=None)
@given(
    back=st.lists(
        st.tuples(st.floats(0, 5), st.just(BE), st.integers(1, 600), st.integers(1, 40)),
        max_size=6,
    ),
    moment=st.floats(0, 8),
    prompt=st.integers(1, 256),
)
def test_urgent_work_waits_for_a_yield_point_at_most(
    back: list[Arrival], moment: float, prompt: int
) -> None:
    load = sorted([*back, (moment, LS, prompt, 5)])
    _, ended = simulate(server("strict", PATIENT), load)
    (urgent,) = [request for request, _ in ended.values() if request.level == LS]
    longest = COST.table(256)[256] + COST.pair_s * 256 * 700 + COST.context_s * 8 * 700
    bound = longest / COST.layers + COST.suspend_s
    assert urgent.started - urgent.arrived <= bound + 1e-9
    # And then it runs as if alone: prefill and decodes, but for riders.
    alone, _ = simulate(server("strict", PATIENT), [(0.0, LS, prompt, 5)])
    slowdown = 1.25 + 0.05
    assert urgent.first - urgent.started <= alone.ttft[LS][0] * slowdown


def test_stock_makes_urgent_work_wait_for_the_step() -> None:
    """What the bound above would not catch if nothing ever waited."""
    load = [(0.0, BE, 600, 5), (0.05, LS, 16, 2)]
    waits = {}
    for policy in ("fcfs", "priority", "step", "strict"):
        _, ended = simulate(server(policy, token_budget=2048, slots=8), load)
        urgent = next(request for request, _ in ended.values() if request.level == LS)
        waits[policy] = urgent.started - urgent.arrived
    assert waits["strict"] < 0.04
    assert min(waits["fcfs"], waits["priority"], waits["step"]) > 0.2


def test_best_effort_work_ages() -> None:
    """Urgent work without end holds best-effort work back for ``max_wait_ms`` at a time."""
    clients = (Clients(LS, 1, ((64, 200),)),)
    load = [(1.0, BE, 250, 3)]
    meter, ended = simulate(server("strict"), load, clients=clients, seconds=60.0)
    (best_effort,) = [request for request, _ in ended.values() if request.level == BE]
    assert 2.0 <= best_effort.started - best_effort.arrived < 2.2
    # Slices of 100 ms, 2 s apart: its prefill is suspended between them.
    assert meter.suspensions[BE] >= 1


@pytest.mark.parametrize("policy", ["strict", "step"])
@pytest.mark.parametrize(("max_wait", "slice_ms"), [(2000, 100), (40, 10)])
def test_best_effort_decodes_keep_their_share(policy: str, max_wait: int, slice_ms: int) -> None:
    """However many steps fit into a slice."""
    config = {
        "ride_slowdown": 1,
        "classes": [
            {"name": "chat", "max_priority": 0},
            {"name": "batch", "max_wait_ms": max_wait, "slice_ms": slice_ms},
        ],
    }
    cost = Cost(((1, 0.005), (2, 0.005)), layers=COST.layers)
    clients = (Clients(LS, 1, ((1, 200),)),)
    load = [(0.0, BE, 1, 4000)]
    options = {"clients": clients, "seconds": 60.0, "window": (0.0, 60.0)}
    meter, _ = simulate(server(policy, config), load, cost, **options)
    expected = slice_ms / (max_wait + slice_ms)
    assert meter.work[BE] / sum(meter.work) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("policy", ["fcfs", "priority", "strict", "step"])
@settings(max_examples=10, deadline=None)
@given(st.data())
def test_nobody_is_worse_off_alone(policy: str, data: st.DataObject) -> None:
    one = st.tuples(
        st.floats(0, 3), st.sampled_from([LS, BE]), st.integers(1, 256), st.integers(1, 20)
    )
    load = sorted(data.draw(st.lists(one, min_size=1, max_size=12)))
    _, shared = simulate(server(policy), load, replicas=1)
    _, alone = simulate(server(policy), load, replicas=len(load), routing="round_robin")
    for number, (request, end) in alone.items():
        other, later = shared[number]
        assert request.first <= other.first + 1e-9
        assert end <= later + 1e-9


def test_more_replicas_are_better() -> None:
    """On a load that overwhelms one replica, under every policy and routing."""
    load = [(i * 0.07, i % 3 != 0, 40 + 37 * (i % 11), 4 + i % 17) for i in range(400)]
    load = [(at, int(level), prompt, output) for at, level, prompt, output in load]
    for policy in ("fcfs", "priority", "strict", "step"):
        for routing in ("round_robin", "least_outstanding", "class_aware"):
            waits = []
            for replicas in (1, 2, 4, 8, 64):
                meter, _ = simulate(server(policy), load, replicas=replicas, routing=routing)
                waits.append(sum(map(sum, meter.e2e)))
            assert waits == sorted(waits, reverse=True), (policy, routing, waits)
