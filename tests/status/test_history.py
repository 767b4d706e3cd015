# SPDX-License-Identifier: Apache-2.0
"""What happened in a window is what happened between its first and its last sample."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vllm_qllm.config import PriorityConfig
from vllm_qllm.metrics.recorder import Recorder
from vllm_qllm.metrics.stores import Stores
from vllm_qllm.status.history import INTERVAL_SECONDS, MAX_SECONDS, History, Window

CONFIG = PriorityConfig()
NAMES = [c.name for c in CONFIG.classes]
TOKENS = "qllm_generated_tokens_total"
RESPONSE = "qllm_response_seconds"


class Machine:
    """A recorder, and a history that is sampled as the thread does, on a clock of the test's."""

    def __init__(self, directory: Path) -> None:
        self.time = 1000.0
        self.directory = directory
        stores = Stores(NAMES, str(directory / "metrics"))
        self.history = History(stores, lambda: self.time)

    def start(self) -> Recorder:
        """The engine begins to record."""
        return Recorder(CONFIG, self.directory / "metrics.0")

    def run(self, seconds: float, every: Callable[[], None] = lambda: None) -> None:
        """Time passes; ``every`` happens after each interval, before the sample."""
        end = self.time + seconds
        while self.time < end - 1e-9:
            self.time += INTERVAL_SECONDS
            every()
            self.history.sample()

    def window(self, seconds: float) -> Window:
        found = self.history.window(seconds)
        assert found is not None
        return found


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_before_an_engine_records_there_is_none(machine: Machine) -> None:
    machine.run(10)
    assert machine.history.window(60) is None
    assert machine.history.sample() is None


def test_what_was_before_the_window_does_not_count(machine: Machine) -> None:
    recorder = machine.start()
    machine.run(40, lambda: recorder.generated_tokens(1, 100))
    machine.run(60, lambda: recorder.generated_tokens(1, 1))
    recorder.response(0, 0.003)
    machine.time += 1
    window = machine.window(60)
    assert window.grown(TOKENS, NAMES[1]) == pytest.approx(30, abs=1)
    assert 60 <= window.seconds <= 60 + INTERVAL_SECONDS
    width = window.layout.width(next(m for m in window.layout.metrics if m.name == RESPONSE))
    *counts, total = window.counts(RESPONSE, width, NAMES[0])
    assert sum(counts) == 1 and total == pytest.approx(0.003)
    whole = machine.window(0)
    assert whole.grown(TOKENS, NAMES[1]) == 20 * 100 + 30
    assert whole.seconds == pytest.approx(101)


def test_a_server_younger_than_the_window(machine: Machine) -> None:
    recorder = machine.start()
    recorder.generated_tokens(0, 7)  # before the first sample
    machine.run(4)
    window = machine.window(300)
    assert window.grown(TOKENS, NAMES[0]) == 7
    assert window.seconds == pytest.approx(4)


def test_gauges_are_those_of_now(machine: Machine) -> None:
    recorder = machine.start()
    recorder.waiting(1, 5)
    machine.run(4)
    recorder.waiting(1, 2)
    assert machine.window(60).now("qllm_requests_waiting", NAMES[1]) == 2


def test_rates_by_parts_of_the_window(machine: Machine) -> None:
    recorder = machine.start()
    machine.run(100, lambda: recorder.generated_tokens(0, 10))
    machine.run(100, lambda: recorder.generated_tokens(0, 30))
    machine.time += 0.5
    rates = machine.window(200).rates(20, TOKENS, NAMES[0])
    assert 10 <= len(rates) <= 20
    assert rates[1] == pytest.approx(10 / INTERVAL_SECONDS)
    assert rates[-2] == pytest.approx(30 / INTERVAL_SECONDS)
    assert len(machine.window(10).rates(60, TOKENS, NAMES[0])) <= 7


def test_a_day_takes_no_more_room_than_the_longest_window(machine: Machine) -> None:
    recorder = machine.start()
    machine.run(3 * MAX_SECONDS, lambda: recorder.generated_tokens(0, 1))
    window = machine.window(MAX_SECONDS)
    assert MAX_SECONDS <= window.seconds <= MAX_SECONDS + INTERVAL_SECONDS
    assert len(machine.window(0).between) <= MAX_SECONDS / INTERVAL_SECONDS + 2
    assert machine.window(0).grown(TOKENS, NAMES[0]) == 3 * MAX_SECONDS / INTERVAL_SECONDS
