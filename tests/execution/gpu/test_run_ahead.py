# SPDX-License-Identifier: Apache-2.0
"""How far the host gets ahead of a device, which here passes marks when the test says so."""

from __future__ import annotations

import itertools

import pytest

from vllm_qllm.execution.gpu import interruption, run_ahead
from vllm_qllm.execution.gpu.interruption import Interruption
from vllm_qllm.execution.gpu.run_ahead import RunAhead
from vllm_qllm.execution.protocol import EXPERTS, Place


class Device:
    """Marks in the order in which they were recorded; ``passed`` of them are behind it."""

    def __init__(self) -> None:
        self.recorded = self.passed = self.looks = 0
        self.passes_a_mark_every = 0  # looks

    def new_mark(self) -> DeviceMark:
        return DeviceMark(self)

    def look(self) -> None:
        self.looks += 1
        assert self.looks < 10_000, "waits for ever"
        if self.passes_a_mark_every and self.looks % self.passes_a_mark_every == 0:
            self.passed = min(self.recorded, self.passed + 1)


class DeviceMark:
    def __init__(self, device: Device) -> None:
        self._device = device
        self._number = 0

    def record(self) -> None:
        self._device.recorded += 1
        self._number = self._device.recorded

    def query(self) -> bool:
        self._device.look()
        return self._device.passed >= self._number


@pytest.fixture(autouse=True)
def no_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_ahead, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(interruption, "POLL_SECONDS", 0.0)


@pytest.mark.parametrize("window", [1, 2, 5])
def test_the_host_is_never_further_ahead_than_the_window(window: int) -> None:
    device = Device()
    device.passes_a_mark_every = 3
    ahead = RunAhead(window, device.new_mark)
    for _ in range(30):
        ahead.mark(lambda: False)
        assert device.recorded - device.passed <= window
    # Nor less far than it may be: it waited for no mark but the one that was too far behind.
    assert device.recorded - device.passed == window


def test_whoever_is_to_stop_does_not_wait() -> None:
    device = Device()
    ahead = RunAhead(1, device.new_mark)
    answers = itertools.chain([False, False], itertools.repeat(True))
    for _ in range(4):
        ahead.mark(lambda: next(answers))
    assert device.passed == 0 and device.recorded == 4
    # The step goes on later, when the device has caught up.
    device.passed = 4
    ahead.mark(lambda: False)
    assert device.recorded == 5


class Session:
    """A step that is due after some looks."""

    def __init__(self, due_after: int = 1 << 30, suspendable: bool = True) -> None:
        self.suspendable = suspendable
        self.suspended: list[Place] = []
        self._left = due_after

    def is_due(self) -> bool:
        self._left -= 1
        return self._left < 0

    def suspend(self, place: Place) -> None:
        self.suspended.append(place)


class Flag:
    """A device's flag; the device passes the mark once its launch was asked to stop."""

    tensor = None

    def __init__(self, device: Device) -> None:
        self.raised: list[int] = []
        self._device = device
        self._numbers = itertools.count(1)

    def new_number(self) -> int:
        return next(self._numbers)

    def raise_for(self, number: int) -> None:
        self.raised.append(number)
        self._device.passed = self._device.recorded


HERE = Place(3, EXPERTS)


def test_a_launch_is_asked_to_stop_once_its_step_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruption, "LEAST_SECONDS", 0.0)
    device, session = Device(), Session(due_after=3)
    flag = Flag(device)
    of_layer = Interruption(session, flag, HERE, device.new_mark)  # type: ignore[arg-type]
    for launch in (1, 2):  # launched again, it has another number
        stop = of_layer.stop()
        assert stop is not None and stop.number == launch
        of_layer.mark()
        of_layer.wait()
        assert flag.raised == list(range(1, launch + 1))
        of_layer.suspend()
    assert session.suspended == [HERE, HERE]


def test_a_launch_gets_on_a_little_before_it_is_asked_to_stop() -> None:
    device, session = Device(), Session(due_after=0)
    device.passes_a_mark_every = 1  # over at once
    flag = Flag(device)
    of_layer = Interruption(session, flag, HERE, device.new_mark)  # type: ignore[arg-type]
    assert of_layer.stop() is not None
    of_layer.mark()
    of_layer.wait()
    assert flag.raised == []


def test_a_step_that_is_not_to_be_suspended_looks_at_no_flag() -> None:
    device, session = Device(), Session(suspendable=False)
    flag = Flag(device)
    of_layer = Interruption(session, flag, HERE, device.new_mark)  # type: ignore[arg-type]
    assert of_layer.stop() is None
    assert flag.new_number() == 1, "numbers are those of launches"
