# SPDX-License-Identifier: Apache-2.0
"""The arithmetic from a record to numbers: what counts, what waits for ever, when tokens count."""

from __future__ import annotations

import math

import pytest

from benchmarks.record.summary import (
    attainment,
    decode_iteration,
    number,
    of_class,
    progress,
    spread,
    stall,
    tokens_in_window,
)
from tests.benchmarks.records import record, request


def test_a_request_that_never_came_is_infinite_in_the_percentiles_it_falls_on() -> None:
    found = spread([1.0] * 9 + [math.inf])
    assert (found.p50, found.p99, found.max, found.mean) == (1.0, math.inf, math.inf, math.inf)


def test_latencies_are_of_requests_due_in_the_window_from_when_they_were_due() -> None:
    ls = of_class(
        record(
            "s",
            request(0, 9.9, 5.0, (10.0, 20.0)),  # warm-up
            request(1, 10.0, 0.2, (10.0, 30.0), sent=10.05),
            request(2, 19.9, 0.4, (50.0, 50.0)),  # answered after the window
            request(3, 20.0, 7.0, (10.0, 10.0)),  # late
        ),
        "LS",
    )
    assert ls.requests == 2
    assert (ls.ttft.p50, ls.ttft.max) == pytest.approx((0.3, 0.4))
    assert ls.tpot.max == pytest.approx(0.05)
    assert ls.tpot.p50 == pytest.approx(0.035)
    assert ls.gap.max == pytest.approx(0.05)
    assert ls.gap.p50 == pytest.approx(0.04)
    assert ls.e2e.max == pytest.approx(0.5)
    assert ls.late == pytest.approx(0.05)


def test_what_failed_or_was_never_answered_is_not_averaged_away() -> None:
    ls = of_class(
        record(
            "s",
            request(0, 11.0, 0.1, (10.0,)),
            request(1, 12.0, None),
            request(2, 13.0, None, outcome="failed", error="HTTP 400: no"),
            request(3, 5.0, None, outcome="failed", error="HTTP 400: no"),  # warm-up
        ),
        "LS",
    )
    assert (ls.requests, ls.failed, ls.unanswered) == (3, 1, 1)
    assert ls.errors == {"HTTP 400: no": 2}
    assert ls.ttft.p50 == math.inf
    assert ls.e2e.mean == math.inf
    assert ls.gap.max == pytest.approx(0.01)


def test_a_closed_loop_is_not_blamed_for_what_was_in_flight_at_the_end() -> None:
    answered = request(0, 11.0, 2.0, (10.0,), kind="BE")
    in_flight = request(1, 15.0, None, kind="BE")
    be = of_class(record("s", answered, in_flight), "BE")
    assert (be.requests, be.unanswered) == (2, 0)
    assert be.ttft.max == pytest.approx(2.0)

    failed = request(2, 16.0, None, kind="BE", outcome="failed", error="x")
    be = of_class(record("s", answered, in_flight, failed), "BE")
    assert be.failed == 1
    assert be.ttft.max == math.inf


def test_tokens_count_when_they_come_and_prompts_with_the_first_one() -> None:
    run = record(
        "s",
        # Two of its five tokens, and not its prompt, are in the window: 9.8, 9.9, 10.0, 10.1 ...
        request(0, 9.0, 0.9, (50.0, 100.0, 9950.0, 10.0), kind="BE"),
        request(1, 12.0, 1.0, (100.0, 100.0), kind="BE"),
    )
    assert run.of("BE")[0].tokens == pytest.approx([9.9, 9.95, 10.05, 20.0, 20.01])
    assert tokens_in_window(run, "BE") == 1 + 100 + 3
    assert of_class(run, "BE").tokens_per_second == pytest.approx(10.4)
    assert sum(rate * 5.0 for _, rate in progress(run, "BE")) == pytest.approx(104)
    assert progress(run, "BE")[1][1] == 0.0


def test_what_comes_inside_the_window_counts_though_nothing_was_due_there() -> None:
    long = request(0, 2.0, 3.0, (6000.0, 7000.0), kind="BE")  # tokens at 5, 11 and 18
    run = record("s", long)
    assert of_class(run, "BE").requests == 0
    assert of_class(run, "BE").tokens_per_second == pytest.approx(2 / run.seconds)


def test_a_stall_is_the_longest_time_without_a_token_ends_included() -> None:
    run = record("s", request(0, 12.0, 1.0, (100.0, 100.0), kind="BE"))
    assert stall(run, "BE") == pytest.approx(20.0 - 13.2)
    assert stall(run, "LS") == 0.0


def test_attainment_counts_those_that_never_came() -> None:
    run = record(
        "s",
        request(0, 11.0, 0.1),
        request(1, 12.0, 0.29),
        request(2, 13.0, 0.5),
        request(3, 14, None),
    )
    assert attainment(run, 0.3) == 0.5
    assert attainment(record("s"), 0.3) is None


def test_a_decode_iteration_is_the_median_gap() -> None:
    run = record("s", request(0, 1.0, 0.1, (10, 40, 20)), request(1, 12.0, 0.1, (30, 900)))
    assert decode_iteration(run) == pytest.approx(0.03)


def test_numbers_have_three_digits_and_what_never_came_a_word() -> None:
    values = (None, math.inf, 0.12345, 12.345, 123.45)
    assert [number(v) for v in values] == ["-", "never", "0.123", "12.3", "123"]
