# SPDX-License-Identifier: Apache-2.0
"""Limits hold whatever comes, whoever leaves, and whatever the clock does."""

from __future__ import annotations

import multiprocessing
from collections import deque
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from vllm_qllm.access.counter_table import CounterTable
from vllm_qllm.access.limiter import ACTIVE, ADMITTED, MAX_RETRY_AFTER, Claim, Limiter
from vllm_qllm.access.refusal import Refusal
from vllm_qllm.access.tenant import Limits

CLASSES = ("urgent", "middle", "idle")


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Tenants(RuleBasedStateMachine):
    """Two tenants in three classes, of which the model is a list of what is held."""

    limits = {
        "urgent": Limits(max_concurrent=5),
        "middle": Limits(requests_per_second=2.0, burst=6),
        "idle": Limits(max_concurrent=4, requests_per_second=0.5),
    }
    max_in_flight = {"urgent": 8, "middle": 12, "idle": 10}

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.limiter = Limiter(CounterTable(), CLASSES, self.clock)
        self.held: list[Claim] = []
        self.admitted: dict[tuple[str, str], deque[tuple[float, int]]] = {}

    @rule(tenant=st.sampled_from("ab"), cls=st.sampled_from(CLASSES), weight=st.integers(1, 7))
    def ask(self, tenant: str, cls: str, weight: int) -> None:
        before = [self.active(t, c) for t in "ab" for c in CLASSES]
        most = self.max_in_flight[cls]
        got = self.limiter.admit(tenant, cls, weight, self.limits[cls], most)
        if isinstance(got, Claim):
            self.held.append(got)
            self.admitted.setdefault((tenant, cls), deque()).append((self.clock.now, weight))
            return
        # It uses up nothing, and a place or a token was really missing.
        assert before == [self.active(t, c) for t in "ab" for c in CLASSES]
        assert (got.retry_after is None) == (got.reason == "sequences")
        if got.reason == "concurrency":
            limit = self.limits[cls].max_concurrent
            assert limit is not None and self.active(tenant, cls) + weight > limit
        if got.reason == "overload":
            urgent = CLASSES[: CLASSES.index(cls) + 1]
            assert sum(c.weight for c in self.held if c.cls in urgent) + weight > most
        if got.reason == "rate":
            assert got.retry_after is not None
            self.clock.now += got.retry_after
            again = self.limiter.admit(tenant, cls, weight, self.limits[cls])
            assert isinstance(again, Claim), "Retry-After was too short"
            self.held.append(again)
            self.admitted[tenant, cls].append((self.clock.now, weight))
            self.limiter.release(self.held.pop())

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        self.limiter.release(self.held.pop(data.draw(st.integers(0, len(self.held) - 1))))

    @rule(seconds=st.floats(0, 20))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    def active(self, tenant: str, cls: str) -> float:
        return self.limiter.numbers(tenant, cls)[ACTIVE]

    @invariant()
    def what_is_counted_is_what_is_held(self) -> None:
        for tenant in "ab":
            for cls in CLASSES:
                held = sum(c.weight for c in self.held if (c.tenant, c.cls) == (tenant, cls))
                assert self.active(tenant, cls) == held
                limit = self.limits[cls].max_concurrent
                assert limit is None or held <= limit

    @invariant()
    def no_stretch_of_time_saw_more_than_the_rate(self) -> None:
        for (_, cls), admitted in self.admitted.items():
            rate = self.limits[cls].requests_per_second
            if rate is None:
                continue
            for start, (since, _) in enumerate(admitted):
                total = 0
                for at, weight in list(admitted)[start:]:
                    total += weight
                    assert total <= self.limits[cls].bucket + rate * (at - since) + 1e-6


TestTenants = Tenants.TestCase
TestTenants.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(st.lists(st.floats(-1e6, 1e6), max_size=20))
def test_a_clock_that_jumps_gives_nothing_away(jumps: list[float]) -> None:
    """A monotonic clock does not; if one did, a tenant would get no more than its burst again."""
    clock, limits = Clock(), Limits(requests_per_second=1.0, burst=2)
    limiter = Limiter(CounterTable(), CLASSES, clock)
    for jump in jumps:
        clock.now += jump
        got = [limiter.admit("a", "idle", 1, limits) for _ in range(4)]
        assert sum(isinstance(each, Claim) for each in got) <= 2


def test_retry_after_follows_how_long_answers_take() -> None:
    clock = Clock()
    limiter, limits = Limiter(CounterTable(), CLASSES, clock), Limits(max_concurrent=2)

    def wait() -> int | None:
        claims = [limiter.admit("a", "idle", 1, limits) for _ in range(3)]
        refused = claims.pop()
        assert isinstance(refused, Refusal)
        clock.now += seconds
        for claim in claims:
            assert isinstance(claim, Claim)
            limiter.release(claim)
        return refused.retry_after

    seconds = 20.0
    assert wait() == 1  # nothing is known yet
    assert wait() == 10  # two places, an answer of 20 seconds
    seconds = 1e5
    assert [wait() for _ in range(3)][-1] == MAX_RETRY_AFTER


def test_a_changed_limit_holds_at_once() -> None:
    limiter = Limiter(CounterTable(), CLASSES, Clock())
    claims = [limiter.admit("a", "idle", 1, Limits(max_concurrent=3)) for _ in range(3)]
    assert isinstance(limiter.admit("a", "idle", 1, Limits(max_concurrent=2)), Refusal)
    assert isinstance(limiter.admit("a", "idle", 1, Limits(max_concurrent=4)), Claim)
    for claim in claims:
        assert isinstance(claim, Claim)
        limiter.release(claim)
    assert isinstance(limiter.admit("a", "idle", 1, Limits(max_concurrent=2)), Claim)


def _take(path: str, start: Any, results: Any) -> None:
    limiter, limits = Limiter(CounterTable(path), CLASSES), Limits(max_concurrent=10**6)
    start.wait()  # all at once, so that they would step on each other's numbers
    for _ in range(4000):
        claim = limiter.admit("a", "idle", 1, limits)
        assert isinstance(claim, Claim)
        limiter.release(claim)
    held = [limiter.admit("a", "idle", 1, limits) for _ in range(1000)]
    results.put(len(held))


def test_processes_share_one_limit(tmp_path: Path) -> None:
    path = str(tmp_path / "table")
    context = multiprocessing.get_context("spawn")
    results, start = context.Queue(), context.Barrier(3)
    started = [context.Process(target=_take, args=(path, start, results)) for _ in range(3)]
    for process in started:
        process.start()
    held = sum(results.get(timeout=60) for _ in started)
    for process in started:
        process.join()
    numbers = Limiter(CounterTable(path), CLASSES).numbers("a", "idle")
    assert (numbers[ACTIVE], numbers[ADMITTED]) == (held, 15_000)


anything = (
    st.integers()
    | st.sampled_from([10**17, 10**309, 2**31, 2**63, -(2**63), True, False])
    | st.floats()
    | st.none()
    | st.text(max_size=3)
    | st.lists(st.integers(), max_size=2)
)


@given(st.lists(st.tuples(anything, st.sampled_from(CLASSES), st.booleans()), max_size=30))
def test_whatever_comes_counts_return_to_zero_and_are_integers(asked: list[Any]) -> None:
    limiter, held = Limiter(CounterTable(), CLASSES, Clock()), []
    base = limiter.admit("a", "idle", 5, Limits())
    assert isinstance(base, Claim)
    for weight, cls, leaves in asked:
        got = limiter.admit("a", cls, weight, Limits(), 2**40)
        if isinstance(got, Claim):
            assert type(weight) is int and weight > 0
            held.append(got)
        else:
            assert (got.status, got.reason) == (400, "sequences")
        if leaves and held:
            limiter.release(held.pop())
        counts = [n for c in CLASSES for n in limiter.numbers("a", c)]
        assert all(type(n) is int for n in counts)
        assert limiter.numbers("a", "idle")[ACTIVE] >= 5
    for claim in held:
        limiter.release(claim)
    assert [limiter.numbers("a", c)[ACTIVE] for c in CLASSES] == [0, 0, 5]


def test_a_request_may_come_to_hold_more() -> None:
    limiter, limits = Limiter(CounterTable(), CLASSES, Clock()), Limits(max_concurrent=3)
    first = limiter.admit("a", "idle", 1, limits)
    assert isinstance(first, Claim)
    more = limiter.admit("a", "idle", 2, limits, held=first)
    assert isinstance(more, Claim)
    assert (more.weight, more.since) == (3, first.since)
    assert limiter.numbers("a", "idle")[:2] == (3, 1)  # it is one request
    refused = limiter.admit("a", "idle", 1, limits, held=more)
    assert isinstance(refused, Refusal) and refused.reason == "sequences"
    limiter.release(more)
    assert limiter.numbers("a", "idle")[ACTIVE] == 0


def test_a_rate_of_next_to_nothing_is_a_rate() -> None:
    for rate in (5e-324, 1e-300, 1e-9):
        limiter, limits = (
            Limiter(CounterTable(), CLASSES, Clock()),
            Limits(requests_per_second=rate),
        )
        assert isinstance(limiter.admit("a", "idle", 1, limits), Claim)
        refused = limiter.admit("a", "idle", 1, limits)
        assert isinstance(refused, Refusal) and refused.retry_after == 365 * 86_400


def test_who_comes_when_it_was_told_to_is_admitted_whatever_the_clock_rounds() -> None:
    limits = Limits(requests_per_second=2.0, burst=6)
    for start in range(1000):
        clock = Clock()
        clock.now += start * 0.123456789
        limiter = Limiter(CounterTable(), CLASSES, clock)
        assert isinstance(limiter.admit("a", "middle", 4, limits), Claim)
        told = limiter.admit("a", "middle", 4, limits)
        assert isinstance(told, Refusal) and told.retry_after is not None
        clock.now += told.retry_after
        assert isinstance(limiter.admit("a", "middle", 4, limits), Claim)
