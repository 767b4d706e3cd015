# SPDX-License-Identifier: Apache-2.0
"""Steps of the simulation hold what those of vLLM's and the plugin's schedulers hold.

Requests arrive at random; every step takes one second of virtual time. The real scheduler, without
a model, and the simulated one must schedule the same tokens of the same requests in each step.
"""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
from vllm.v1.core.sched.scheduler import Scheduler as VllmScheduler

from tests.capacity.fleets import BE, LS
from tests.engine.bare_scheduler import THREE_CLASSES, BareScheduler, Clock, Make
from tests.engine.conftest import clock, make, scheduler_config  # noqa: F401
from vllm_qllm.capacity.batch import Batch
from vllm_qllm.capacity.cost import Cost
from vllm_qllm.capacity.fleet import Fleet
from vllm_qllm.capacity.replica import Replica
from vllm_qllm.capacity.server import Server, with_policy
from vllm_qllm.capacity.workload import Arrival, Workload
from vllm_qllm.config import PriorityConfig

SECOND = Cost(((1, 1.0), (2, 1.0)))
STARTED = 1000.0  # of the tests' virtual clock
PRIORITY = {LS: 0, BE: 10, 2: 11}
# Enough that prompts which are computed again are cut before their last token, steps are empty, and
# requests come in the step in which the last one of their class ends.
SEEDS = range(50)
Steps = list[dict[str, int]]


@pytest.fixture
def without_prefix_cache(scheduler_config: Any) -> Any:  # noqa: F811
    """The simulation knows no prefixes: what lost its blocks is computed anew."""
    config = copy.deepcopy(scheduler_config)
    config.cache_config.enable_prefix_caching = False
    return config


def load(seed: int, ls_share: float) -> list[Arrival]:
    """Requests between steps, which start at whole seconds; times of arrival differ."""
    draw = random.Random(seed)
    times = sorted(draw.sample(range(30), 16))
    return [
        (
            at + 0.25 + i / 1000,
            LS if draw.random() < ls_share else BE,
            draw.choice([1, 15, 16, 17, 40, 70, 150]),
            draw.randint(1, 12),
        )
        for i, at in enumerate(times)
    ]


def simulated(server: Server, arrivals: list[Arrival]) -> Steps:
    """The steps of one simulated replica."""
    steps: Steps = []
    start = Replica._start

    def note(replica: Replica, batch: Batch, now: float) -> None:
        step = {f"r{r.number}": 1 for r in batch.decodes}
        steps.append(step | {f"r{r.number}": n for r, n in batch.prefills})
        start(replica, batch, now)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Replica, "_start", note)
        patch.setattr(Replica, "_alike", lambda self, batch: 1)
        Fleet(server, SECOND).run(Workload(tuple(arrivals)))
    return steps


def real(bare: BareScheduler, arrivals: list[Arrival]) -> Steps:
    """The steps of the real one."""
    steps: Steps = []
    waiting = list(enumerate(arrivals, 1))
    while waiting or bare.scheduler.requests:
        now = bare.clock.now - STARTED
        if not bare.scheduler.requests:  # idle: a step begins when a request arrives
            now = max(now, waiting[0][1][0])
            bare.clock.now = STARTED + now
        while waiting and waiting[0][1][0] <= now:
            number, (at, level, prompt, output) = waiting.pop(0)
            bare.add(f"r{number}", PRIORITY[level], prompt, output, arrival=at)
        if step := bare.begin():
            steps.append(step)
        else:  # a request has lost its own blocks: an engine puts the next step together at once
            assert bare.outputs[-1].preempted_req_ids
        bare.end(took=1.0 if step else 0.0)
    return steps


@pytest.mark.parametrize(("blocks", "reserved"), [(12, 0.0), (11, 0.25), (64, 0.2)])
@pytest.mark.parametrize("riders", [1.0, 3.0])
def test_the_plugin_s_steps(
    without_prefix_cache: Any,
    clock: Clock,  # noqa: F811
    blocks: int,
    reserved: float,
    riders: float,
) -> None:
    config = {
        "reserved_kv": reserved,
        "ride_slowdown": riders,
        "classes": [
            {"name": "ls", "max_priority": 0},
            # Of steps that take a second: one a slice, or several.
            {"name": "be", "max_wait_ms": 7500, "slice_ms": 2500 if blocks == 64 else 900},
        ],
    }
    priority = PriorityConfig.from_dict({"policy": "step", "yield_points": "none", **config})
    server = Server("classes", priority, token_budget=64, slots=4, kv_blocks=blocks, block_size=16)
    preempted = 0
    for seed in SEEDS:
        arrivals = load(seed, 0.6)
        bare = BareScheduler(
            without_prefix_cache,
            clock,
            blocks=blocks,
            policy="step",
            yield_points="none",
            **config,
        )
        bare.clock.now = STARTED
        assert simulated(server, arrivals) == real(bare, arrivals), seed
        preempted += sum(bare.preemptions().values())
    assert preempted > 0 or blocks == 64, "no request lost its blocks: that was not tested"


def test_steps_of_three_classes_on_few_blocks(
    without_prefix_cache: Any,
    clock: Clock,  # noqa: F811
) -> None:
    """The class between takes from the last one, and leaves the reserve to the first."""
    config = {"reserved_kv": 0.2, "ride_slowdown": 1.0, "classes": THREE_CLASSES}
    priority = PriorityConfig.from_dict({"policy": "step", "yield_points": "none", **config})
    server = Server("classes", priority, token_budget=64, slots=4, kv_blocks=20, block_size=16)
    taken = 0
    for seed in SEEDS:
        draw = random.Random(seed)
        arrivals = [(at, draw.choice([0, 1, 1, 2, 2]), *more) for at, _, *more in load(seed, 0.5)]
        bare = BareScheduler(
            without_prefix_cache, clock, blocks=20, policy="step", yield_points="none", **config
        )
        bare.clock.now = STARTED
        assert simulated(server, arrivals) == real(bare, arrivals), seed
        taken += sum(bare.preemptions().values())
    assert taken > 0


class Stock(BareScheduler):
    """vLLM's own scheduler, driven in the same way."""

    def __init__(self, base: Any, time: Clock, policy: str, blocks: int, threshold: int) -> None:
        config = copy.deepcopy(base)
        config.scheduler_config.long_prefill_token_threshold = threshold
        super().__init__(config, time, blocks=blocks)
        ours = self.scheduler
        config = ours.vllm_config
        config.scheduler_config.policy = policy
        ours.shutdown()
        self.scheduler = VllmScheduler(  # type: ignore[assignment]
            vllm_config=config,
            kv_cache_config=ours.kv_cache_config,
            structured_output_manager=ours.structured_output_manager,
            block_size=16,
            log_stats=True,
        )

    def begin(self) -> dict[str, int]:
        output = self.scheduler.schedule()
        self.outputs.append(output)
        return dict(output.num_scheduled_tokens)

    @property
    def abandoned(self) -> bool:
        """No step is given up."""
        return False

    def written(self) -> None:
        """What blocks hold is followed for the plugin's alone."""

    def check(self) -> None:
        """What the plugin's must hold is of the plugin's alone."""


@pytest.mark.parametrize("threshold", [0, 20])
@pytest.mark.parametrize("blocks", [12, 64])
@pytest.mark.parametrize("policy", ["fcfs", "priority"])
def test_stock_steps(
    without_prefix_cache: Any,
    clock: Clock,  # noqa: F811
    policy: str,
    blocks: int,
    threshold: int,
) -> None:
    base = Server(
        token_budget=64,
        slots=4,
        kv_blocks=blocks,
        block_size=16,
        long_prefill_threshold=threshold,
    )
    server = with_policy(base, policy)
    preempted = 0
    for seed in SEEDS:
        arrivals = load(seed, 0.5)
        stock = Stock(without_prefix_cache, clock, policy, blocks, threshold)
        clock.now = STARTED
        assert simulated(server, arrivals) == real(stock, arrivals), seed
        preempted += sum(stock.preemptions().values())
    assert preempted > 0 or blocks == 64, "no request lost its blocks: that was not tested"


def test_a_difference_would_be_noticed(make: Make) -> None:  # noqa: F811
    """The comparison above can fail: other slots, other steps."""
    priority = PriorityConfig.from_dict({"policy": "step", "yield_points": "none"})
    server = Server("classes", priority, token_budget=64, slots=3, kv_blocks=64, block_size=16)
    arrivals = [(0.25 + i / 1000, BE, 10, 5) for i in range(4)]
    bare = make(policy="step", yield_points="none")
    bare.clock.now = STARTED
    assert simulated(server, arrivals) != real(bare, arrivals)
