# SPDX-License-Identifier: Apache-2.0
"""Random arrivals, aborts and suspensions, with what must always hold checked after each."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.engine.bare_scheduler import BareScheduler, Clock
from vllm_qllm.policy import Resume

PRIORITIES = (-3, 0, 5, 10, 11, 99)
TWO = [{"name": "ls", "max_priority": 0}, {"name": "be"}]
THREE = [
    {"name": "chat", "max_priority": 0, "max_wait_ms": 500},
    {"name": "agent", "max_priority": 10, "max_wait_ms": 50, "slice_ms": 20},
    {"name": "batch"},
]


class RandomLoad:
    """Plays the part of EngineCore, the controller and the clients.

    Every choice comes from ``rng``: when requests arrive, how long they are, which share a
    prefix, which are aborted, where steps are suspended and how long they run.
    """

    def __init__(self, bare: BareScheduler, rng: random.Random, arrivals: int) -> None:
        self.bare = bare
        self.rng = rng
        self.left = arrivals
        self.aborted: set[str] = set()
        self.depths: set[int] = set()
        self.given_up = 0

    def clients(self) -> None:
        """Something may arrive, something may go away."""
        rng, bare = self.rng, self.bare
        while self.left and rng.random() < 0.4:
            self.left -= 1
            shared = rng.choice((0, 0, 20, 48))
            own = rng.randint(1, 90)
            prompt = [*range(shared), *(rng.randrange(1000, 9999) for _ in range(own))]
            bare.add(
                f"r{len(bare.requests)}",
                rng.choice(PRIORITIES),
                prompt,
                out=rng.randint(1, 12),
                arrival=rng.choice((0.0, bare.clock.now, -bare.clock.now)),
                program=rng.choice((None, "p", "q")),
            )
        if bare.scheduler.requests and rng.random() < 0.05:
            name = rng.choice(list(bare.scheduler.requests))
            self.aborted.add(name)
            bare.abort(name)
        bare.check()

    def run(self) -> int:
        """Until nothing is left; returns the number of outer steps."""
        steps = 0
        while self.left or self.bare.scheduler.has_requests():
            self.clients()
            self.bare.clock.now += self.rng.choice((0.0, 0.01, 0.3))
            if self.bare.scheduler.has_requests():
                scheduled = self.bare.begin()
                self.complete(scheduled)
                steps += 1
            assert steps < 3000, "no end in sight"
        return steps

    def complete(self, scheduled: dict[str, int]) -> None:
        """Run the innermost step to its end, with all that nests on it."""
        rng, bare = self.rng, self.bare
        self.check_step(scheduled)
        while bare.step_in_flight.suspendable and rng.random() < 0.5:
            bare.suspend(ran=rng.choice((0.0, 0.02, 0.2)))
            self.clients()
            if self.nest():
                bare.resume()
            else:
                bare.give_up()
                self.given_up += 1
                break
        # vLLM applies aborts that came during the step just before its results.
        if scheduled and rng.random() < 0.05:
            self.clients()
        bare.end(took=rng.choice((0.0, 0.02, 0.5)))

    def nest(self) -> bool:
        """Run what nests on the suspended step; whether that is to go on."""
        bare = self.bare
        while not isinstance(bare.decide(), Resume):
            # Once the policy has been asked, its answer holds.
            nested = bare.nest()
            assert nested is not None
            self.complete(nested)
            wanted = bare.scheduler.abandonment.wanted
            self.clients()
            if wanted:
                return False
            if not nested:
                break  # as the controller: nothing can be scheduled on top
        return True

    def check_step(self, scheduled: dict[str, int]) -> None:
        """What must hold of every single step."""
        bare = self.bare
        scheduler = bare.scheduler
        self.depths.add(len(scheduler.flight))
        assert len(scheduled) <= scheduler.max_num_running_reqs
        assert sum(scheduled.values()) <= scheduler.max_num_scheduled_tokens
        levels = {name: scheduler.by_class.level(bare.requests[name]) for name in scheduled}
        outer = scheduler.flight.suspended
        if not scheduled:
            return
        if outer:
            assert min(levels.values()) < min(one.level for one in outer)
        decodes = [n for n in scheduled if bare.requests[n].num_output_tokens]
        prefills = [n for n in scheduled if n not in decodes]
        if decodes and prefills:
            urgent = min(levels[n] for n in decodes)
            assert all(levels[n] <= urgent for n in prefills), (decodes, prefills)


def play(make: Callable[..., BareScheduler], seed: int, **arguments: Any) -> RandomLoad:
    load = RandomLoad(make(**arguments), random.Random(seed), arrivals=25)
    load.run()
    bare = load.bare
    assert set(bare.finished) | load.aborted == set(bare.requests)
    for name, request in bare.requests.items():
        if name not in load.aborted:
            assert request.num_output_tokens == request.max_tokens
    bare.scheduler.programs.release_all()
    bare.assert_idle()
    return load


# Loose; tight in blocks; tight in slots; tight in both with a reserve and three classes.
@pytest.mark.parametrize(
    "arguments",
    [
        {"blocks": 200, "seqs": 8, "classes": TWO},
        {"blocks": 14, "seqs": 4, "classes": TWO},
        {"blocks": 200, "seqs": 2, "classes": THREE},
        {"blocks": 20, "seqs": 3, "classes": THREE, "reserved_kv": 0.2, "max_preemptions": 2},
        {"blocks": 14, "seqs": 4, "classes": TWO, "policy": "step"},
        {"blocks": 16, "seqs": 4, "classes": THREE, "program_ttl_ms": 500.0, "order": "program"},
    ],
    ids=["loose", "few blocks", "few slots", "few of all", "step", "programs"],
)
def test_every_request_gets_all_of_its_tokens(
    make: Callable[..., BareScheduler], arguments: dict[str, Any]
) -> None:
    depths: set[int] = set()
    given_up = 0
    for seed in range(12):
        try:
            load = play(make, seed, ride_slowdown=2, **arguments)
            depths |= load.depths
            given_up += load.given_up
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
    # Or it would not have tested what it is for.
    deepest = 1 if arguments.get("policy") == "step" else len(arguments["classes"])
    assert max(depths) == deepest
    if arguments["blocks"] < 20 and deepest > 1:
        assert given_up > 3


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    rng=st.randoms(use_true_random=False),
    blocks=st.integers(12, 40),
    seqs=st.integers(1, 5),
    tokens=st.integers(8, 80),
    classes=st.sampled_from([TWO, THREE]),
    reserved=st.sampled_from([0.0, 0.1, 0.3]),
    most=st.sampled_from([0, 1, 8]),
    ttl=st.sampled_from([0.0, 100.0, 5000.0]),
)
def test_whatever_the_sizes(
    scheduler_config: Any,
    clock: Clock,
    rng: random.Random,
    blocks: int,
    seqs: int,
    tokens: int,
    classes: list[dict[str, Any]],
    reserved: float,
    most: int,
    ttl: float,
) -> None:
    bare = BareScheduler(
        scheduler_config,
        clock,
        blocks=blocks,
        seqs=seqs,
        tokens=tokens,
        classes=classes,
        reserved_kv=reserved,
        max_preemptions=most,
        program_ttl_ms=ttl,
    )
    load = RandomLoad(bare, rng, arrivals=8)
    load.run()
    assert set(bare.finished) | load.aborted == set(bare.requests)
    bare.scheduler.programs.release_all()
    bare.assert_idle()
