# SPDX-License-Identifier: Apache-2.0
"""A fleet on Ray Serve: who gets which request, and what a client sees when a replica goes.

Servers are started only once, so the last test is the one that ends some; scaling.py goes on there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.deploy.balancer import TRUSTED
from tests.deploy.ray_fleet import RayFleet, RayReplica
from tests.deploy.traffic import BE, COMPLETE, LS, Outcome, chunk_times, traffic
from tests.serve.server import MODEL
from tests.spellings import ask_for, disguises, spellings

# Two servers and Ray are started at once, on what may be two busy cores.
pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(600)]

PATH, GONE = "/v1/completions", "is gone. Try again."


def post(fleet: RayFleet, source: str = "127.0.0.1", **fields: Any) -> httpx.Response:
    """Ask for a few tokens; ``key`` names a tenant, ``headers`` come on top."""
    key = fleet.keys.get(fields.pop("key", "people"), "not-a-key")
    headers = {"Authorization": f"Bearer {key}"}
    headers |= fields.pop("headers", {})
    with httpx.Client(transport=httpx.HTTPTransport(local_address=source), timeout=120) as client:
        body = {"model": MODEL, "prompt": "hello", "max_tokens": 3} | fields
        return client.post(f"{fleet.url}{PATH}", json=body, headers=headers)


def until(condition: Callable[[], Any], within_seconds: float = 60) -> None:
    """Wait for it."""
    deadline = time.monotonic() + within_seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.1)


@contextlib.contextmanager
def open_stream(
    fleet: RayFleet, priority: int, replica: RayReplica | None = None
) -> Iterator[Iterator[str]]:
    """The lines of a long answer whose first token has come, and that ends with the block.

    Args:
        fleet: which gets it.
        priority: of it.
        replica: which gets it instead, past all of Ray.
    """
    body = {"model": MODEL, "prompt": "hello", "max_tokens": 2000, "priority": priority}
    body |= {"stream": True, "ignore_eos": True}
    headers = {"Authorization": f"Bearer {fleet.keys['people']}"}
    if replica is None:
        client = httpx.Client(base_url=fleet.url, timeout=120)
    else:
        client = replica.client()
    with client, client.stream("POST", PATH, json=body, headers=headers) as answer:
        assert answer.status_code == 200
        lines = answer.iter_lines()  # kept: without it httpx closes the stream
        next(lines)
        yield lines


def test_streams_are_not_held_back(on_ray: RayFleet) -> None:
    times = chunk_times(on_ray.url, on_ray.keys["people"], tokens=300)
    assert len(times) > 100
    # Held back, the first would come with the last.
    assert times[0] < times[-1] / 4


def test_classes_keys_and_tiers_mean_what_they_do_on_one_server(on_ray: RayFleet) -> None:
    assert post(on_ray).json()["service_tier"] == "default"
    assert post(on_ray, service_tier="flex").json()["service_tier"] == "flex"
    assert post(on_ray, priority=5).json()["service_tier"] == "flex"
    assert post(on_ray, key="nightly", service_tier="priority").json()["service_tier"] == "flex"
    header = {"X-Vllm-Priority": "5"}
    assert post(on_ray, headers=header).json()["service_tier"] == "default", "whoever says it"
    assert post(on_ray, TRUSTED, headers=header).json()["service_tier"] == "flex"


def test_refusals_come_through(on_ray: RayFleet) -> None:
    assert post(on_ray, key="nobody").status_code == 401
    wrong = post(on_ray, service_tier="flex", extra_body={"service_tier": "gold"})
    assert wrong.status_code == 400 and "gold" in wrong.json()["error"]["message"]
    # One a replica, as each counts for itself.
    answers = [post(on_ray, key="few") for _ in range(3)]
    (late, *_) = refused = [answer for answer in answers if answer.status_code == 429]
    assert len(refused) < 3 and int(late.headers["Retry-After"]) >= 1
    assert late.json()["error"]["code"] == 429
    large = post(on_ray, prompt="x" * (8 << 20))
    assert large.status_code == large.json()["error"]["code"] == 413
    for path in ("/metrics", "/v1/load_lora_adapter"):
        for name in (*spellings(path), *disguises(path, "/v1/models")):
            status, body = ask_for(on_ray.url, name, on_ray.keys["people"])
            # What follows a # is not asked for: that is a plain /v1/models.
            assert status in (400, 404) or json.loads(body)["object"] == "list", (name, body)
    asked = post(on_ray, headers={"X-Request-Id": "job-17:3"})
    assert asked.headers.get_list("X-Request-Id") == ["job-17:3"]


def test_who_goes_away_is_not_computed_for(on_ray: RayFleet) -> None:
    def aborted() -> float:
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(r.client()) for r in on_ray.replicas()]
            text = "\n".join(client.get("/metrics").text for client in clients)
        lines = [line for line in text.splitlines() if 'outcome="abort"' in line]
        return sum(float(line.split()[-1]) for line in lines)

    before = aborted()
    with open_stream(on_ray, priority=0):
        assert sum(r.at_work()[LS] for r in on_ray.replicas()) == 1
    until(lambda: aborted() == before + 1, within_seconds=20)
    assert sum(r.at_work()[LS] for r in on_ray.replicas()) == 0


def test_urgent_work_goes_where_least_of_it_is(on_ray: RayFleet) -> None:
    a, b = on_ray.replicas()

    def who_gets(priority: int, cls: str) -> RayReplica:
        before = [r.at_work()[cls] for r in (a, b)]
        with open_stream(on_ray, priority):
            after = [r.at_work()[cls] for r in (a, b)]
        until(lambda: [r.at_work()[cls] for r in (a, b)] == before)
        (which,) = [r for r, was, now in zip((a, b), before, after, strict=True) if now > was]
        return which

    # By the metrics of the replicas alone: no front has seen these.
    with contextlib.ExitStack() as stack:
        stack.enter_context(open_stream(on_ray, 0, a))
        for _ in range(3):
            stack.enter_context(open_stream(on_ray, 9, b))
        time.sleep(3)  # replicas report twice a second
        assert (a.at_work(), b.at_work()) == ({LS: 1, BE: 0}, {LS: 0, BE: 3})
        assert who_gets(0, LS) == b, "b has more to do, but nothing urgent"
        assert who_gets(9, BE) == a, "a has less to do"


def test_a_burst_does_not_go_to_one_replica(on_ray: RayFleet) -> None:
    def ended() -> list[float]:
        return [r.samples("qllm_requests_total")[LS] for r in on_ray.replicas()]

    # Streams that other tests gave up count when their end is noticed.
    until(lambda: not any(sum(r.at_work().values()) for r in on_ray.replicas()))
    before = ended()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: post(on_ray, max_tokens=300), range(8)))
    assert {answer.status_code for answer in answers} == {200}
    gained = [now - was for was, now in zip(before, ended(), strict=True)]
    assert sum(gained) == 8 and min(gained) >= 3, gained


def test_a_replica_that_dies_loses_nothing_silently(on_ray: RayFleet) -> None:
    until(lambda: not any(sum(r.at_work().values()) for r in on_ray.replicas()))

    async def load(victim: RayReplica) -> tuple[list[Outcome], int]:
        async with traffic(on_ray.url, on_ray.keys["people"], each=2) as clients:
            await clients.more(3)
            os.kill(victim.actor, signal.SIGKILL)
            since = len(clients.ended)
            await clients.more(12)
        assert not clients.lost(), clients.lost()
        return clients.ended, since

    with open_stream(on_ray, priority=0) as lines:
        (victim,) = [r for r in on_ray.replicas() if r.at_work()[LS]]
        ended, since = asyncio.run(load(victim))
        last = [line for line in lines if line][-1]
    assert GONE in last and json.loads(last.removeprefix("data: "))["error"]["code"] == 502
    errors = [outcome for outcome in ended if outcome.how != COMPLETE]
    # Only streams that had begun: all others were asked of the other replica.
    assert all(o.stream and GONE in o.how for o in errors), errors
    assert len(errors) < len(ended) - since, "no request was served after that"
    # Its server goes with the actor.
    until(lambda: not Path(f"/proc/{victim.server}").exists())
