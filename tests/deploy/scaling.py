# SPDX-License-Identifier: Apache-2.0
"""A replica on Ray is taken away under load, and nobody notices.

Not named test_…: after test_ray.py it waits for the replica that replaces the one that was killed.
``make test-deploy`` runs it.
"""

from __future__ import annotations

import asyncio

import pytest

from tests.deploy.ray_fleet import RayFleet
from tests.deploy.test_ray import until
from tests.deploy.traffic import COMPLETE, Outcome, traffic

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]


def test_a_replica_that_is_taken_away_finishes_what_it_has(on_ray: RayFleet) -> None:
    until(lambda: [r.is_well() for r in on_ray.replicas()] == [True, True], 240)

    async def load() -> list[Outcome]:
        async with traffic(on_ray.url, on_ray.keys["people"], each=2) as clients:
            await clients.more(8)
            await asyncio.to_thread(on_ray.scale, 1)
            await asyncio.to_thread(until, lambda: len(on_ray.replicas()) == 1, 120)
            await clients.more(8)
        return clients.ended

    ended = asyncio.run(load())
    assert not [outcome for outcome in ended if outcome.how != COMPLETE]
