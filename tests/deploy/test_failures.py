# SPDX-License-Identifier: Apache-2.0
"""Replicas are restarted and killed under load: nothing is lost without the client being told.

The tests build upon each other, so that servers are started only where one was ended.
"""

from __future__ import annotations

import asyncio
import signal
import time

import httpx
import openai
import pytest

from tests.deploy.fleet import Fleet, Replica
from tests.deploy.traffic import BE, COMPLETE, LS, Outcome, Traffic, traffic
from tests.serve.server import MODEL

# Two servers are started at once, on what may be two busy cores.
pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(600)]


def served(replica: Replica) -> float:
    """Requests that this replica has ended."""
    return sum(replica.server.samples("qllm_requests_total").values())


def counted(outcomes: list[Outcome]) -> str:
    """For messages: what the requests came to."""
    return "\n".join(sorted({f"{o.cls} stream={o.stream}: {o.how}" for o in outcomes}))


async def both_are_busy(load: Traffic, fleet: Fleet) -> None:
    """Until each replica has requests of both classes."""
    async with asyncio.timeout(60):
        for replica in (fleet.a, fleet.b):
            while True:
                samples = await asyncio.to_thread(replica.server.samples, "qllm_requests_total")
                ended = {cls for key, n in samples.items() for cls in (LS, BE) if cls in key and n}
                if len(ended) == 2:
                    break
                await asyncio.sleep(0.2)


def test_streams_are_not_held_back(running_fleet: Fleet) -> None:
    url, key = f"{running_fleet.balancer.url}/v1", running_fleet.key
    with openai.OpenAI(base_url=url, api_key=key) as client:
        stream = client.completions.create(
            model=MODEL,
            prompt="once upon a time",
            max_tokens=400,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        began = time.monotonic()
        times = [time.monotonic() - began for _ in stream]
    # Held back, the first would come with the last.
    assert len(times) > 100
    assert times[0] < times[-1] / 4


def test_a_restart_drains_and_nobody_notices(running_fleet: Fleet) -> None:
    a, b, balancer = running_fleet.a, running_fleet.b, running_fleet.balancer

    async def load() -> Traffic:
        async with traffic(balancer.url, running_fleet.key, each=3) as clients:
            await both_are_busy(clients, running_fleet)
            a.server.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(a.server.has_ended, 60), a.server.tail()
            await asyncio.to_thread(balancer.wait_until_left_out, a.address)
            await clients.more(12)
        return clients

    clients = asyncio.run(load())
    assert a.server.process.returncode == 0
    assert not clients.lost(), counted(clients.lost())
    assert not clients.errors(), counted(clients.errors())
    # It listened on while it drained, and sent away who came then.
    sent_away = [line for line in balancer.requests() if "503, 200" in line["replica_status"]]
    assert all(line["replica"].startswith(a.address) for line in sent_away)

    a.start()
    balancer.wait_until_left_out()

    async def again() -> Traffic:
        async with traffic(balancer.url, running_fleet.key) as clients:
            await both_are_busy(clients, running_fleet)
        return clients

    clients = asyncio.run(again())
    assert not clients.lost() + clients.errors(), counted(clients.ended)
    assert served(a) and served(b)


def test_a_replica_that_hangs_is_left_out(running_fleet: Fleet) -> None:
    a, b, balancer = running_fleet.a, running_fleet.b, running_fleet.balancer

    async def load() -> Traffic:
        async with traffic(balancer.url, running_fleet.key) as clients:
            await clients.more(4)
            with a.hung():
                await asyncio.to_thread(balancer.wait_until_left_out, a.address)
                before = await asyncio.to_thread(served, b)
                await clients.more(4)
                assert await asyncio.to_thread(served, b) > before
            await asyncio.to_thread(balancer.wait_until_left_out)
        return clients

    clients = asyncio.run(load())
    # What it had was late, and came.
    assert not clients.lost() + clients.errors(), counted(clients.ended)


def test_a_replica_that_is_killed_loses_nothing_silently(running_fleet: Fleet) -> None:
    a, b, balancer = running_fleet.a, running_fleet.b, running_fleet.balancer

    async def load() -> tuple[Traffic, int]:
        async with traffic(balancer.url, running_fleet.key, each=3) as clients:
            # While the other one is left out, requests gather on the one that will be killed.
            with a.hung():
                await asyncio.to_thread(balancer.wait_until_left_out, a.address)
                await clients.more(12)
            await asyncio.to_thread(balancer.wait_until_left_out)
            b.kill()
            await asyncio.to_thread(balancer.wait_until_left_out, b.address)
            since = len(clients.ended)
            await clients.more(20)
        return clients, since

    before = len(balancer.requests())
    clients, since = asyncio.run(load())
    assert not clients.lost(), counted(clients.lost())
    # Only streams that had begun end with an error; all others were asked of the other replica.
    assert clients.errors(), "nothing was open on the replica that was killed"
    assert all(o.stream for o in clients.errors()), counted(clients.errors())
    assert not [o for o in clients.ended[since:] if o.how != COMPLETE and o.chunks == 0]
    lines = balancer.requests()[before:]
    again = [line for line in lines if line["replica_status"] == "502, 200"]
    assert again, "nothing was asked again"
    assert all(line["replica"].endswith(a.address) for line in again)
    assert all(line["replica"] == a.address for line in lines[-5:])


def test_an_engine_that_dies_ends_streams_with_an_error_event(running_fleet: Fleet) -> None:
    a, balancer = running_fleet.a, running_fleet.balancer

    async def load() -> Traffic:
        async with traffic(balancer.url, running_fleet.key, each=2) as clients:
            await clients.more(4)
            a.kill_engine()
            await clients.more(12)
        return clients

    clients = asyncio.run(load())
    assert not clients.lost(), counted(clients.lost())
    # An error that comes as an event of a stream has no status: the client knows it as APIError.
    events = [o for o in clients.errors() if o.how.startswith("APIError: EngineCore")]
    assert events and all(o.stream for o in events), counted(clients.errors())
    # The rest had no answer yet: status 500 while the replica lived, 502 when it was gone.
    assert all(o in events or " code: 50" in o.how for o in clients.errors())


def test_with_no_replica_left_clients_are_told(running_fleet: Fleet) -> None:
    assert running_fleet.a.server.has_ended(within_seconds=30)
    body = {"model": MODEL, "prompt": "anybody?", "stream": True}
    answer = httpx.post(f"{running_fleet.balancer.url}/v1/completions", json=body, timeout=30)
    assert answer.status_code == answer.json()["error"]["code"] == 502
    assert answer.headers["Retry-After"] == "2"
