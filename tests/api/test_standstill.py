# SPDX-License-Identifier: Apache-2.0
"""How long an engine has stood still, from what it says and what was sent to it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.api.client import Client
from vllm_qllm.api import standstill
from vllm_qllm.api.standstill import SPARE, StalledError, Standstill
from vllm_qllm.metrics.pulse import Pulse, PulseReader


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 5000.0

    def monotonic(self) -> float:
        return self.now


class Watched:
    """An engine that beats and a client that sends, both by hand."""

    def __init__(self, clock: Clock, path: Path, limit: float) -> None:
        self.clock, self.client, self.pulse = clock, Client(), Pulse(path)
        self.standstill = Standstill(self.client, PulseReader(path), limit)

    def beat(self, busy: bool) -> None:
        self.pulse.beat(self.clock.now, busy)

    def after(self, seconds: float) -> float:
        """For how long it stands still then."""
        self.clock.now += seconds
        return self.standstill.seconds()


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    clock = Clock()
    monkeypatch.setattr(standstill, "time", clock)
    return Watched(clock, tmp_path / "metrics.0.pulse", limit=10.0)


def test_an_engine_at_work_stands_still_since_its_last_step(watched: Watched) -> None:
    watched.beat(busy=True)
    assert watched.after(7) == 7
    watched.beat(busy=True)
    assert watched.after(1) == 1


def test_an_idle_engine_does_not(watched: Watched) -> None:
    assert watched.after(7) == 0, "it has not begun to record"
    watched.beat(busy=False)
    assert watched.after(3600) == 0


def test_requests_that_an_idle_engine_does_not_take_count_from_when_they_were_sent(
    watched: Watched,
) -> None:
    watched.client.send("before")
    watched.clock.now += 1
    watched.beat(busy=False)
    assert watched.after(60) == 0, "it has taken that one, which waits for something else"
    watched.client.send("first")
    assert watched.after(4) == 4
    watched.client.send("second")
    assert watched.after(4) == 8, "what comes later makes it no better"
    watched.client.end("first")
    assert watched.after(0) == 4
    watched.client.end("second")
    assert watched.after(60) == 0
    watched.client.send("third")
    watched.clock.now += 1
    watched.beat(busy=False)
    assert watched.after(60) == 0, "it has taken that one"


def test_health_fails_beyond_the_limit_and_says_why(watched: Watched) -> None:
    watched.beat(busy=True)
    watched.clock.now += 10
    asyncio.run(watched.client.check_health())
    watched.clock.now += 1
    with pytest.raises(StalledError, match=r"no step for 11\.0 s .* allows 10000 ms") as raised:
        asyncio.run(watched.client.check_health())
    assert raised.value.http_status == 503
    watched.beat(busy=True)
    asyncio.run(watched.client.check_health())


def test_without_a_limit_health_is_what_it_was(tmp_path: Path) -> None:
    watched = Watched(Clock(), tmp_path / "pulse", limit=0.0)
    watched.pulse.beat(1e-9, busy=True)  # when the machine started
    assert watched.standstill.seconds() > 0
    asyncio.run(watched.client.check_health())


def test_requests_that_have_ended_are_forgotten(watched: Watched) -> None:
    for number in range(5 * SPARE):
        watched.client.send(str(number))
        if number % 10:
            watched.client.end(str(number))
    assert (
        len(watched.standstill._sent)
        <= 2 * len(watched.client.output_processor.request_states) + SPARE
    )


def test_without_room_for_the_file_the_engine_serves(tmp_path: Path) -> None:
    pulse = Pulse(tmp_path / "missing" / "pulse")
    pulse.beat(1.0, busy=True)
    pulse.close()
