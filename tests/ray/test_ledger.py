# SPDX-License-Identifier: Apache-2.0
"""What a router believes a replica has, between two reports of it."""

from __future__ import annotations

import pytest

from vllm_qllm.ray.ledger import MARGIN, Ledger


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(classes=2)


def test_a_replica_that_has_not_reported_has_what_it_was_sent(ledger: Ledger) -> None:
    assert ledger.answers("a") and ledger.counts("a") == [0, 0]
    ledger.sent("a", "1", 1, now=10)
    assert ledger.answers("a") and ledger.counts("a") == [0, 1]


def test_what_was_sent_since_the_report_comes_on_top(ledger: Ledger) -> None:
    ledger.report("a", 10, [3, 4])
    ledger.sent("a", "1", 0, now=11)
    assert ledger.counts("a") == [4, 4]
    ledger.report("a", 10, [3, 4])
    assert ledger.counts("a") == [4, 4], "the same report changes nothing"
    ledger.report("a", 11 + MARGIN, [4, 4])
    assert ledger.counts("a") == [4, 4], "it is in this one"


def test_what_was_sent_just_before_a_report_may_not_be_in_it(ledger: Ledger) -> None:
    ledger.report("a", 10, [0, 0])
    ledger.sent("a", "1", 0, now=11)
    ledger.report("a", 11 + MARGIN / 2, [0, 0])
    assert ledger.counts("a") == [1, 0]


def test_a_clock_that_was_set_back_does_not_stop_reports(ledger: Ledger) -> None:
    ledger.report("a", 1000, [3, 4])
    ledger.sent("a", "1", 0, now=1001)
    ledger.report("a", 10, [2, 0])
    assert ledger.counts("a") == [2, 0]
    ledger.report("a", 11, [1, 0])
    assert ledger.counts("a") == [1, 0]


def test_a_request_is_at_one_replica_until_it_ends(ledger: Ledger) -> None:
    ledger.sent("a", "1", 0, now=1)
    ledger.sent("b", "1", 0, now=2)
    assert (ledger.counts("a"), ledger.counts("b")) == ([0, 0], [1, 0])
    ledger.ended("1")
    assert ledger.counts("b") == [0, 0]
    ledger.ended("1")


def test_one_that_does_not_answer_is_known_for_it(ledger: Ledger) -> None:
    ledger.report("a", 10, [1, 1])
    ledger.report("a", 11, None)
    assert not ledger.answers("a")
    ledger.report("a", 12, [1, 0])
    assert ledger.answers("a") and ledger.counts("a") == [1, 0]


def test_who_has_gone_is_forgotten(ledger: Ledger) -> None:
    ledger.report("a", 10, [1, 1])
    ledger.report("b", 10, [2, 2])
    ledger.keep(["b"])
    assert (ledger.counts("a"), ledger.counts("b")) == ([0, 0], [2, 2])
