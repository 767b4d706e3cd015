# SPDX-License-Identifier: Apache-2.0
"""Costs, servers and random loads that the tests of the capacity model share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from vllm_qllm.capacity.cost import Cost
from vllm_qllm.capacity.fleet import Fleet
from vllm_qllm.capacity.meter import Meter
from vllm_qllm.capacity.request import Request
from vllm_qllm.capacity.server import Server, with_policy
from vllm_qllm.capacity.workload import Arrival, Clients, Workload

LS, BE = 0, 1
POLICIES = ("fcfs", "priority", "strict", "step")
COST = Cost(
    ((1, 0.02), (2, 0.022), (8, 0.03), (64, 0.06), (2048, 1.2)),
    context_s=1e-7,
    pair_s=1e-9,
    overhead_s=0.01,
    suspend_s=0.002,
    resume_s=0.001,
)


def server(policy: str, config: dict[str, Any] | None = None, **options: Any) -> Server:
    """A small server under ``policy``."""
    base = Server(**{"token_budget": 256, "slots": 8, "kv_blocks": 256, "block_size": 16} | options)
    return with_policy(base, policy, json.dumps(config) if config else None)


def arrivals(most: int = 30) -> st.SearchStrategy[list[Arrival]]:
    """Loads of both classes within ten seconds."""
    one = st.tuples(
        st.floats(0, 10), st.sampled_from([LS, BE]), st.integers(1, 600), st.integers(1, 40)
    )
    return st.lists(one, min_size=1, max_size=most).map(sorted)


def simulate(
    server: Server,
    load: Sequence[Arrival] = (),
    cost: Cost = COST,
    clients: tuple[Clients, ...] = (),
    seconds: float = 0.0,
    **options: Any,
) -> tuple[Meter, dict[int, tuple[Request, float]]]:
    """What was counted, and each request, by number, with when it ended."""
    ended: dict[int, tuple[Request, float]] = {}

    def end(request: Request, now: float) -> None:
        assert request.number not in ended
        ended[request.number] = (request, now)

    fleet = Fleet(server, cost, ended=end, **options)
    return fleet.run(Workload(tuple(load), clients, seconds)), ended
