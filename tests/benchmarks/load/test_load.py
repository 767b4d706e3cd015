# SPDX-License-Identifier: Apache-2.0
"""Arrivals, lengths and streams: what is drawn, that it is the same again, and bad values."""

from __future__ import annotations

import random
import statistics
from itertools import islice, pairwise
from pathlib import Path

import pytest

from benchmarks.load.arrivals import Arrivals, Bursts, Gamma, Poisson, times
from benchmarks.load.lengths import Fixed, LogNormal
from benchmarks.load.streams import ClosedLoop, OpenLoop, Replay, open_loop, prompt_of
from benchmarks.load.traces import Traces

NOWHERE = Traces(Path("/nowhere"))


@pytest.mark.parametrize(
    ("arrivals", "cv"), [(Poisson(2.0), 1.0), (Gamma(2.0, 3.0), 3.0), (Gamma(2.0, 0.5), 0.5)]
)
def test_arrivals_have_their_rate_and_coefficient_of_variation(
    arrivals: Arrivals, cv: float
) -> None:
    moments = list(islice(times(arrivals, random.Random(1)), 40_000))
    gaps = [b - a for a, b in pairwise([0.0, *moments])]
    mean = statistics.fmean(gaps)
    assert 1 / mean == pytest.approx(2.0, rel=0.06)
    assert statistics.pstdev(gaps) / mean == pytest.approx(cv, rel=0.06)


def test_a_burst_comes_all_at_once() -> None:
    bursts = Bursts(size=3, every=10.0)
    moments = list(islice(times(bursts, random.Random(1)), 7))
    assert moments == [5.0, 5.0, 5.0, 15.0, 15.0, 15.0, 25.0]
    assert bursts.rate == pytest.approx(0.3)


def test_log_normal_lengths_have_their_mean_and_end_at_the_longest() -> None:
    free = LogNormal(100, 0.8, 40, 0.5, longest_prompt=10**9, longest_output=10**9)
    draw = random.Random(1)
    prompts, outputs = zip(*(free.one(draw) for _ in range(40_000)), strict=True)
    assert statistics.fmean(prompts) == pytest.approx(100, rel=0.03)
    assert statistics.fmean(outputs) == pytest.approx(40, rel=0.03)
    cut = LogNormal(100, 2.0, 40, 2.0, longest_prompt=120, longest_output=50)
    pairs = [cut.one(draw) for _ in range(1000)]
    assert max(p for p, _ in pairs) == 120
    assert max(o for _, o in pairs) == 50
    assert min(min(pair) for pair in pairs) == 1


def test_a_seed_gives_the_same_requests_again_and_another_gives_others() -> None:
    stream = OpenLoop((("LS", 0.2), ("BE", 0.8)), Poisson(5.0), LogNormal(80, 1, 9, 1, 999, 99))
    once, again = (list(stream.jobs(3, 60.0, NOWHERE)) for _ in range(2))
    assert once == again
    assert once != list(stream.jobs(4, 60.0, NOWHERE))
    assert prompt_of(3, once[0]) == prompt_of(3, again[0])
    assert prompt_of(3, once[0]) != prompt_of(4, once[0])
    assert len(prompt_of(3, once[0])) == once[0].prompt


def test_a_shared_process_splits_into_classes_at_random_and_numbers_each() -> None:
    stream = OpenLoop((("LS", 0.2), ("BE", 0.8)), Poisson(50.0), Fixed(5, 6))
    jobs = list(stream.jobs(0, 100.0, NOWHERE))
    urgent = [job for job in jobs if job.kind == "LS"]
    assert len(urgent) / len(jobs) == pytest.approx(0.2, abs=0.03)
    assert [job.number for job in urgent] == list(range(len(urgent)))
    assert all(job.due < 100.0 for job in jobs)
    assert [job.due for job in jobs] == sorted(job.due for job in jobs)


def test_no_two_requests_share_a_prompt() -> None:
    stream = open_loop("LS", Poisson(20.0), Fixed(16, 1))
    jobs = list(stream.jobs(0, 30.0, NOWHERE))
    assert len({tuple(prompt_of(0, job)) for job in jobs}) == len(jobs) > 100


def test_lengths_of_a_closed_loop_do_not_depend_on_who_asks_when() -> None:
    stream = ClosedLoop("BE", 3, LogNormal(80, 1, 9, 1, 999, 99))
    late, early = stream.job(0, 7, 12.5), stream.job(0, 7, 0.0)
    assert (late.prompt, late.output) == (early.prompt, early.output)
    assert late.due == 12.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Poisson(0.0), "rate is 0.0; it must be above 0"),
        (lambda: Poisson(float("nan")), "rate is nan; it must be above 0"),
        (lambda: Bursts(0, 1.0), "size is 0; it must be above 0"),
        (lambda: Bursts(1, -1.0), "every is -1.0; it must be above 0"),
        (lambda: Gamma(1.0, -1.0), "cv is -1.0; it must be above 0"),
        (lambda: Fixed(0, 5), "prompt is 0; it must be at least 1 token"),
        (lambda: Fixed(5, 0), "output is 0; it must be at least 1 token"),
        (lambda: LogNormal(9, 1, 9, 1, 0, 9), "longest_prompt is 0; it must be above 0"),
        (lambda: ClosedLoop("BE", 0, Fixed(1, 1)), "clients is 0; it must be above 0"),
        (lambda: Replay("LS", "x.csv", 0.0, 1, 1, 9, 9), "rate is 0.0; it must be above 0"),
        (lambda: OpenLoop((("LS", 0.0),), Poisson(1), Fixed(1, 1)), "share of LS is 0.0"),
    ],
)
def test_values_that_make_no_load_are_named(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
