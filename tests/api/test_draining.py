# SPDX-License-Identifier: Apache-2.0
"""A client that shuts down takes no new request, and those that it has let in."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import pytest
from vllm.v1.engine.exceptions import EngineDeadError

from vllm_qllm.api import draining
from vllm_qllm.api.draining import DrainingError, announce


class Client:
    """An engine's client that notes what it is asked."""

    errored = False

    def __init__(self) -> None:
        self.asked: list[object] = []

    def shutdown(self, timeout: float | None = None) -> None:
        self.asked.append(timeout)

    def check_admission(self, n: int = 1, request_id: str | None = None) -> None:
        self.asked.append((n, request_id))

    async def check_health(self) -> None:
        self.asked.append("health")


@pytest.fixture
def client() -> Client:
    announced = Client()
    announce(announced)
    announce(announced)  # by each request handler
    return announced


def refused(ask: Callable[[], None]) -> bool:
    try:
        ask()
    except DrainingError as error:
        return error.http_status == 503
    return False


def test_a_client_that_serves_is_asked(client: Client) -> None:
    client.check_admission(3)
    client.check_admission(request_id="r")
    asyncio.run(client.check_health())
    assert client.asked == [(3, None), (1, "r"), "health"]


def test_it_gives_notice_first(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draining, "NOTICE_SECONDS", 1.0)
    ends = threading.Thread(target=client.shutdown, kwargs={"timeout": 60})
    ends.start()
    deadline = time.monotonic() + 0.9
    while not refused(client.check_admission):
        assert time.monotonic() < deadline
    with pytest.raises(EngineDeadError):
        asyncio.run(client.check_health())
    # What was let in may still go to the engine, which has not been told yet.
    assert not refused(lambda: client.check_admission(request_id="r"))
    assert 60 not in client.asked
    ends.join()
    assert client.asked[-1] == 60
    assert refused(lambda: client.check_admission(request_id="r"))


@pytest.mark.parametrize(("timeout", "errored"), [(0, False), (None, False), (60, True)])
def test_without_anything_to_drain_it_ends_at_once(
    client: Client, timeout: float | None, errored: bool
) -> None:
    client.errored = errored
    began = time.monotonic()
    client.shutdown(timeout=timeout)
    assert time.monotonic() - began < draining.NOTICE_SECONDS / 2
    assert client.asked == [timeout]
    assert refused(client.check_admission)


def test_the_second_shutdown_gives_no_notice(client: Client) -> None:
    client.shutdown(timeout=0)
    began = time.monotonic()
    client.shutdown(timeout=60)
    assert time.monotonic() - began < draining.NOTICE_SECONDS / 2
    assert client.asked == [0, 60]
