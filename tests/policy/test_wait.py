# SPDX-License-Identifier: Apache-2.0
"""The clock of one kind of work: when something is due, and until when it stays due."""

from __future__ import annotations

import pytest

from vllm_qllm.policy.wait import Wait


@pytest.fixture
def wait() -> Wait:
    made = Wait(max_wait=2.0, slice_=0.1, most=0.5)
    made.present = True
    return made


def test_a_slice_is_due_after_the_wait(wait: Wait) -> None:
    wait.hold(1.99, 1.99)
    assert not wait.due
    wait.hold(0.01, 0.01)
    assert wait.due and wait.credit == pytest.approx(0.1)


def test_it_stays_due_until_it_is_spent(wait: Wait) -> None:
    wait.hold(2.0, 2.0)
    for left in (0.07, 0.04, 0.01):
        wait.serve(0.03)
        assert wait.due and wait.credit == pytest.approx(left)
    wait.serve(0.03)
    assert not wait.due and wait.credit == 0
    wait.hold(1.9, 1.9)
    assert not wait.due


def test_time_is_not_lost_on_what_comes_between(wait: Wait) -> None:
    """An urgent step in the middle of a slice: the rest of it is still due, and a little more."""
    wait.hold(2.0, 2.0)
    wait.serve(0.05)
    wait.hold(0.02, 0.02)
    assert wait.due and wait.credit == pytest.approx(0.051)


def test_who_comes_late_has_earned_more_up_to_a_bound(wait: Wait) -> None:
    wait.hold(4.0, 4.0)
    assert wait.credit == pytest.approx(0.2)
    wait.hold(1e6, 1e6)
    assert wait.credit == 0.5
    wait.limit()
    assert wait.due and wait.credit == pytest.approx(0.1)


def test_a_debt_that_is_paid_meanwhile_shortens_the_slice_before_it_lengthens_the_wait(
    wait: Wait,
) -> None:
    wait.hold(2.0, 1.2)
    assert wait.due and wait.credit == pytest.approx(0.06)
    wait.serve(0.06)
    wait.hold(2.0, 0.4)
    assert not wait.due
    wait.hold(0.6, 0.6)
    assert wait.due and wait.credit == pytest.approx(0.05)


@pytest.mark.parametrize("riding", [1 / 21, 0.5, 1.0])
def test_who_rides_for_its_share_is_owed_nothing(wait: Wait, riding: float) -> None:
    wait.hold(100.0, 100.0, riding)
    assert not wait.due and wait.credit == pytest.approx(0.0, abs=1e-12)


def test_who_rides_less_is_owed_the_rest(wait: Wait) -> None:
    for _ in range(200):
        wait.hold(0.02, 0.02, riding=0.02)
    assert wait.due and wait.credit == pytest.approx(4.0 * (0.98 * 0.05 - 0.02))


def test_a_slice_outlives_a_short_pause(wait: Wait) -> None:
    """One request has ended, the client sends the next one."""
    wait.hold(2.0, 2.0)
    wait.serve(0.02)
    wait.present = False
    wait.hold(0.03, 0.03)
    wait.present = True
    assert wait.due and wait.credit == pytest.approx(0.05)


def test_after_a_long_one_it_begins_anew(wait: Wait) -> None:
    wait.hold(2.0, 2.0)
    wait.present = False
    wait.hold(0.2, 0.2)
    wait.present = True
    assert not wait.due and wait.credit == 0
    wait.hold(1.9, 1.9)
    assert not wait.due


def test_work_that_becomes_another_kind_keeps_its_time(wait: Wait) -> None:
    wait.hold(2.0, 2.0)
    other = Wait(2.0, 0.1, 0.5)
    other.present = True
    other.take_over(wait)
    assert other.due and other.credit == pytest.approx(0.1)
    # But it takes nobody's away.
    wait.serve(0.09)
    other.take_over(wait)
    assert other.credit == pytest.approx(0.1)
