# SPDX-License-Identifier: Apache-2.0
"""A client that shuts down takes no new request, and those that it has let in."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from vllm.v1.engine.exceptions import EngineDeadError

from vllm_qllm.api import draining
from vllm_qllm.api.draining import CutOffError, DrainingError, announce


class Client:
    """An engine's client that notes what it is asked."""

    errored = False
    output_handler: asyncio.Task[None] | None = None

    def __init__(self) -> None:
        self.asked: list[object] = []
        self.errors: list[Exception] = []
        self.unfinished = 0
        self.engine_core = SimpleNamespace(resources=SimpleNamespace(engine_manager=object()))
        self.output_processor = SimpleNamespace(propagate_error=self.errors.append)

    def shutdown(self, timeout: float | None = None) -> None:
        self.asked.append(timeout)

    def check_admission(self, n: int = 1, request_id: str | None = None) -> None:
        self.asked.append((n, request_id))

    def get_num_unfinished_requests(self) -> int:
        return self.unfinished

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


def test_what_is_open_at_the_end_is_cut_off(client: Client) -> None:
    async def serve() -> None:
        client.output_handler = asyncio.create_task(asyncio.sleep(60))
        await asyncio.to_thread(client.shutdown, 0)
        await asyncio.sleep(0)  # by the loop, not by the thread
        assert [type(error) for error in client.errors] == [CutOffError]
        client.output_handler.cancel()

    asyncio.run(serve())
    client.shutdown(0)  # once more, when there is no loop
    assert len(client.errors) == 1


def test_without_an_engine_of_its_own_it_waits_itself(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draining, "NOTICE_SECONDS", 0.0)
    client.engine_core.resources.engine_manager = None
    client.unfinished = 1
    ends = threading.Thread(target=client.shutdown, kwargs={"timeout": 60})
    ends.start()
    ends.join(0.5)
    assert ends.is_alive() and not client.asked
    client.unfinished = 0
    ends.join(30)
    assert client.asked == [60]


def test_it_waits_no_longer_than_it_may(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draining, "NOTICE_SECONDS", 0.0)
    client.engine_core.resources.engine_manager = None
    client.unfinished = 1
    client.shutdown(timeout=draining.LAST_SECONDS + 0.2)
    assert len(client.asked) == 1
