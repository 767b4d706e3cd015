# SPDX-License-Identifier: Apache-2.0
"""Who had the machine, and what each class is owed for that."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_qllm.config import PriorityClass
from vllm_qllm.policy import Service, riding
from vllm_qllm.policy.share import LATE, LONGEST

CLASSES = (
    PriorityClass("chat", max_priority=0),
    PriorityClass("agent", max_priority=10, max_wait_ms=1000, slice_ms=50),
    PriorityClass("batch", max_wait_ms=2000, slice_ms=100),
)
IDLE, PROMPTS, DECODES = (False, False), (True, False), (False, True)
START = 1e6
BUSY = [PROMPTS, IDLE, PROMPTS]


@pytest.fixture
def service() -> Service:
    return Service(CLASSES)


def owed(service: Service, now: float, work: list[tuple[bool, bool]] = BUSY) -> list[float]:
    service.note(work, now)
    return [pytest.approx(service.owed(level)) for level in range(3)]


def test_work_is_owed_a_slice_once_it_has_been_held_back_for_so_long(service: Service) -> None:
    service.note(BUSY, START)
    service.started(0, START)
    assert owed(service, START + 1.99) == [0, 0, 0]
    assert owed(service, START + 2.0)[2] == 0.1
    service.started(2, START + 2.0, charged=True)
    service.ended(START + 2.03)
    assert owed(service, START + 2.03)[2] == 0.07
    # The time until the next step is its own.
    assert owed(service, START + 2.04)[2] == 0.06
    service.started(2, START + 2.04, charged=True)
    service.ended(START + 2.1)
    assert owed(service, START + 2.1)[2] == 0
    service.started(0, START + 2.1)
    assert owed(service, START + 4.09)[2] == 0
    assert owed(service, START + 4.1)[2] == 0.1


def test_what_was_run_over_is_paid_back(service: Service) -> None:
    service.note(BUSY, START)
    service.started(0, START)
    service.started(2, START + 2.0, charged=True)
    service.ended(START + 3.0)
    service.started(0, START + 3.0)
    # Ten slices were had instead of one: the ninth wait after it is over.
    assert owed(service, START + 3.0 + 18.9)[2] == 0
    assert owed(service, START + 3.0 + 19.1)[2] == pytest.approx(0.055)


def test_a_debt_is_not_forgotten_in_a_pause(service: Service) -> None:
    """Or prompts that come one by one would each have a step that is too long."""
    service.note(BUSY, START)
    service.started(0, START)
    service.started(2, START + 2.0, charged=True)
    service.ended(START + 3.0)
    service.note([PROMPTS, IDLE, IDLE], START + 3.0)
    service.started(0, START + 3.0)
    service.note(BUSY, START + 3.1)
    assert owed(service, START + 15.0)[2] == 0
    # But time pays it whether there is work or not.
    service.note([PROMPTS, IDLE, IDLE], START + 16.0)
    service.note(BUSY, START + 500.0)
    assert owed(service, START + 501.9)[2] == 0
    assert owed(service, START + 502.0)[2] == 0.1


def test_nobody_owes_for_time_that_nobody_else_wanted(service: Service) -> None:
    service.note([IDLE, IDLE, PROMPTS], START)
    service.started(2, START)
    service.ended(START + 600.0)
    service.note(BUSY, START + 600.0)
    service.started(0, START + 600.0)
    assert owed(service, START + 602.0)[2] == 0.1


def test_nothing_is_owed_for_a_time_without_work(service: Service) -> None:
    """An engine that stood idle for an hour, in which nobody looked at its work."""
    service.note(BUSY, START)
    service.started(0, START)
    service.ended(START + 1.0)
    service.note([IDLE] * 3, START + 1.0)
    assert owed(service, START + 3600.0) == [0, 0, 0]
    assert service.starved(2) == 0


@pytest.mark.parametrize("seconds", [60.0, 3600.0, 1e9])
def test_a_machine_that_stood_still_owes_and_is_owed_little(
    service: Service, seconds: float
) -> None:
    service.note(BUSY, START)
    service.started(0, START)
    assert owed(service, START + seconds)[2].expected <= 0.1 + LATE / 20
    service.started(2, START + seconds, charged=True)
    service.ended(START + 2 * seconds)
    service.started(0, START + 2 * seconds)
    assert owed(service, START + 2 * seconds + LONGEST * 20 + 2.0)[2] != 0


def test_a_clock_that_stands_still_or_goes_back_changes_nothing(service: Service) -> None:
    service.note(BUSY, START)
    service.started(0, START)
    assert owed(service, START - 100.0) == owed(service, START - 100.0) == [0, 0, 0]
    assert owed(service, START - 98.0)[2] == 0.1


def test_whoever_cannot_use_the_machine_does_not_save_time_up(service: Service) -> None:
    """What lacks KV blocks for a minute has one slice when it finds them."""
    service.note(BUSY, START)
    service.started(0, START)
    service.note(BUSY, START + 50.0)
    assert service.owed(2) > 1.0
    service.refused(2, START + 50.0)
    assert service.owed(2) == pytest.approx(0.1)


def test_a_class_that_rides_and_has_prompts_is_owed_for_these(service: Service) -> None:
    work = [DECODES, IDLE, (True, True)]
    service.note(work, START)
    service.started(0, START, {2: 1.0})
    assert owed(service, START + 2.0, work)[2] == 0.1
    # A step of its own is for both.
    service.started(2, START + 2.0, charged=True)
    service.ended(START + 2.1)
    assert owed(service, START + 2.1, work)[2] == 0
    # No prompts are left, and decodes ride: nothing is owed any more.
    service.started(0, START + 2.1, {2: 1.0})
    service.note([DECODES, IDLE, DECODES], START + 2.1)
    assert owed(service, START + 90.0, [DECODES, IDLE, DECODES])[2] == 0


@pytest.mark.parametrize(
    ("rows", "decodes", "tokens", "share"),
    [
        (4, 4, None, 1.0),  # all of them come as far as alone
        (1, 100, None, 0.01),  # ninety-nine stand still
        (4, 4, 1004, 4 / 1004),  # beside a long prompt a token is little
        (2, 4, 10, 0.1),
    ],
)
def test_what_riding_is_worth(rows: int, decodes: int, tokens: int | None, share: float) -> None:
    assert riding(rows, decodes, tokens) == pytest.approx(share)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.floats(0, 3), st.booleans()), max_size=30),
    st.floats(0, 5),
)
def test_what_will_be_is_what_comes(steps: list[tuple[int, float, bool]], later: float) -> None:
    """The capacity model looks ahead: the same as letting that time pass."""
    service = Service(CLASSES)
    now, work = START, [DECODES, (True, True), PROMPTS]
    service.note(work, now)
    for level, seconds, charged in steps:
        service.started(level, now, {2: 0.03} if level == 1 else {}, charged)
        now += seconds
        service.note(work, now)
    ahead = [(service.owed(r, later), service.starved(r, later)) for r in range(3)]
    now_is = [(service.owed(r), service.starved(r)) for r in range(3)]
    service.note(work, now)
    assert now_is == [(service.owed(r), service.starved(r)) for r in range(3)]
    service.note(work, now + later)
    after = [(service.owed(r), service.starved(r)) for r in range(3)]
    for before, found in zip(ahead, after, strict=True):
        assert before == pytest.approx(found, abs=1e-6)
