# SPDX-License-Identifier: Apache-2.0
"""Replicas are restarted and killed under load: nothing is lost without the client being told.

The tests build upon each other, so that servers are started only where one was ended.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack

import httpx
import openai
import pytest

from tests.deploy.fleet import Fleet, Replica
from tests.deploy.long_request import long_request
from tests.deploy.traffic import BE, LS, Outcome, Traffic, chunk_times, traffic
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


async def state(fleet: Fleet, replica: Replica) -> str:
    """What the replica's status says of itself."""
    async with httpx.AsyncClient(headers={"x-api-key": fleet.operator}) as client:
        answer = await client.get(f"http://{replica.address}/qllm/status")
    return str(answer.json()["state"])


async def until_it_drains(fleet: Fleet, replica: Replica) -> None:
    """Poll its status."""
    async with asyncio.timeout(30):
        while True:
            if await state(fleet, replica) == "draining":
                break
            await asyncio.sleep(0.05)


async def until_in_flight(replica: Replica, tenant: str, requests: int) -> None:
    """Until the replica has so many urgent requests of a tenant."""
    mine = f'qllm_tenant_in_flight{{class="{LS}",tenant="{tenant}"}}'
    async with asyncio.timeout(60):
        while True:
            samples = await asyncio.to_thread(replica.server.samples, "qllm_tenant_in_flight")
            if samples.get(mine) == requests:
                break
            await asyncio.sleep(0.05)


async def status_of(url: str, key: str) -> int:
    """What a new request is answered with."""
    body = {"model": MODEL, "prompt": "anybody?", "max_tokens": 1}
    async with httpx.AsyncClient(headers={"x-api-key": key}, timeout=60) as client:
        return (await client.post(f"{url}/v1/completions", json=body)).status_code


def test_streams_are_not_held_back(running_fleet: Fleet) -> None:
    times = chunk_times(running_fleet.balancer.url, running_fleet.key, tokens=400)
    # Held back, the first would come with the last.
    assert len(times) > 100
    assert times[0] < times[-1] / 4


def test_a_restart_drains_and_nobody_notices(running_fleet: Fleet) -> None:
    a, b, balancer = running_fleet.a, running_fleet.b, running_fleet.balancer

    async def load() -> Traffic:
        async with traffic(balancer.url, running_fleet.key, each=3) as clients:
            await both_are_busy(clients, running_fleet)
            assert await state(running_fleet, a) == "serving"
            # Past nginx: it drains at least as long as this takes, and answers only this.
            async with long_request(a.server.url, running_fleet.key, tokens=1000) as begun:
                a.server.process.send_signal(signal.SIGTERM)
                await until_it_drains(running_fleet, a)
                assert await status_of(a.server.url, running_fleet.key) == 503
                assert not begun.finish_reason.done()
                assert await begun.finish_reason == "length"
            assert await asyncio.to_thread(a.server.has_ended, 60), a.server.tail()
            await asyncio.to_thread(balancer.wait_until_left_out, a.address)
            await clients.more(12)
        return clients

    clients = asyncio.run(load())
    assert a.server.process.returncode == 0
    assert not clients.lost(), counted(clients.lost())
    assert not clients.errors(), counted(clients.errors())
    # Whoever was sent away found the other one.
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

    url, key = balancer.url, running_fleet.operator

    async def load() -> tuple[Traffic, str]:
        async with traffic(url, running_fleet.key, each=3) as clients, AsyncExitStack() as stack:
            # While the other one is left out, requests gather on the one that will be killed.
            with a.hung():
                await asyncio.to_thread(balancer.wait_until_left_out, a.address)
                await clients.more(12)
                begun, whole = [
                    await stack.enter_async_context(long_request(url, key, 2000, stream=stream))
                    for stream in (True, False)
                ]
                await until_in_flight(b, "operators", 2)
            # The other one comes back, and this one answers nobody: both requests are there when
            # it is killed, however fast the machine is.
            with b.hung():
                await asyncio.to_thread(balancer.wait_until_left_out, b.address)
                assert not begun.finish_reason.done() and not whole.finish_reason.done()
                b.kill()
            # A stream that had begun breaks; what had no byte is asked of the other replica.
            with pytest.raises((openai.APIError, httpx.HTTPError)):
                await begun.finish_reason
            await clients.more(20)
            assert await whole.finish_reason == "length"
        return clients, whole.request_id

    before = len(balancer.requests())
    clients, whole = asyncio.run(load())
    assert not clients.lost(), counted(clients.lost())
    # Only what had begun ends with an error. The least of it is a header, if the replica is killed
    # between that and the rest.
    headers = [
        line
        for line in balancer.requests()[before:]
        if (line["replica"], line["status"], line["bytes"]) == (b.address, 200, 0)
    ]
    least = [o for o in clients.errors() if o.chunks == 0]
    assert len(least) <= len(headers), counted(least)
    line = balancer.logged(whole)
    assert (line["replica"], line["replica_status"]) == (f"{b.address}, {a.address}", "502, 200")
    twice = [line for line in balancer.requests()[before:] if line["replica_status"] == "502, 200"]
    assert all(line["replica"].endswith(a.address) for line in twice)
    for _ in range(5):
        answer = httpx.get(f"{url}/v1/models", headers={"x-api-key": key}, timeout=60)
        assert answer.status_code == 200
        assert balancer.logged(answer.headers["X-Request-Id"])["replica"] == a.address


def test_an_engine_that_dies_ends_streams_with_an_error_event(running_fleet: Fleet) -> None:
    a, url = running_fleet.a, running_fleet.balancer.url

    async def load() -> Traffic:
        async with traffic(url, running_fleet.key, each=2) as clients:
            await clients.more(4)
            async with long_request(url, running_fleet.operator, tokens=2000) as begun:
                a.kill_engine()
                # An error that comes as an event of a stream has no status: it is just APIError.
                with pytest.raises(openai.APIError, match="EngineCore"):
                    await begun.finish_reason
            await clients.more(12)
        return clients

    clients = asyncio.run(load())
    assert not clients.lost(), counted(clients.lost())
    events = [o for o in clients.errors() if o.how.startswith("APIError: EngineCore")]
    assert all(o.stream for o in events), counted(clients.errors())
    # The rest had no answer yet: status 500 while the replica lived, 502 when it was gone.
    assert all(o in events or " code: 50" in o.how for o in clients.errors())


def test_with_no_replica_left_clients_are_told(running_fleet: Fleet) -> None:
    assert running_fleet.a.server.has_ended(within_seconds=30)
    body = {"model": MODEL, "prompt": "anybody?", "stream": True}
    answer = httpx.post(f"{running_fleet.balancer.url}/v1/completions", json=body, timeout=30)
    assert answer.status_code == answer.json()["error"]["code"] == 502
    assert answer.headers["Retry-After"] == "2"
