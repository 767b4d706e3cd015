# SPDX-License-Identifier: Apache-2.0
"""Every limit that vLLM checks while it schedules a step: riders leave all of it to the leader.

One property says it for all of them: the steps of urgent requests beside best-effort decodes, as
many as may ride, are those of the urgent requests alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from vllm.config import SpeculativeConfig
from vllm.config.lora import LoRAConfig
from vllm.v1.core.sched.interface import PauseState

from tests.engine.bare_scheduler import (
    AGENT,
    BATCH,
    BE,
    LS,
    THREE_CLASSES,
    BareScheduler,
    Make,
    Scenario,
    add,
    idle,
    play,
    step,
    steps,
)
from vllm_qllm.policy import Run


def adapters(most: int) -> Callable[[Any], None]:
    def configure(config: Any) -> None:
        config.lora_config = LoRAConfig(max_lora_rank=8, max_loras=most)

    return configure


def drafts(tokens: int, slots: int) -> Callable[[Any], None]:
    """Speculate with a drafter that takes ``slots`` inputs of its own for each request."""

    def configure(config: Any) -> None:
        spec = SpeculativeConfig(
            method="ngram",
            num_speculative_tokens=tokens,
            prompt_lookup_max=2,
            target_model_config=config.model_config,
            target_parallel_config=config.parallel_config,
        )
        more = {
            "max_num_new_slots_for_drafting": slots,
            "use_eagle": lambda self: slots > 0,
            "use_eagle_block_drop": lambda self: False,
        }
        spec.__class__ = type("Drafter", (SpeculativeConfig,), more)
        config.speculative_config = spec

    return configure


def scheduling(**fields: Any) -> Callable[[Any], None]:
    def configure(config: Any) -> None:
        for name, value in fields.items():
            assert hasattr(config.scheduler_config, name)
            setattr(config.scheduler_config, name, value)

    return configure


def aligned(bare: BareScheduler) -> None:
    """As for a state-space model, chunks end at blocks."""
    bare.scheduler.need_mamba_block_aligned_split = True


# What the schedulers are made of, whether requests have adapters, and what is changed of them.
LIMITS: dict[str, tuple[dict[str, Any], Callable[[BareScheduler], None]]] = {
    "rows": ({"seqs": 3}, lambda bare: None),
    "active rows": ({"configure": scheduling(max_num_active_seqs=3)}, lambda bare: None),
    "tokens": ({"tokens": 32}, lambda bare: None),
    "tokens, prompts whole": (
        {"tokens": 64, "configure": scheduling(enable_chunked_prefill=False)},
        lambda bare: None,
    ),
    "tokens, chunks of whole blocks": ({"tokens": 40}, aligned),
    "speculated tokens": ({"tokens": 32, "configure": drafts(3, slots=0)}, lambda bare: None),
    "inputs of the drafter": ({"tokens": 32, "configure": drafts(2, slots=2)}, lambda bare: None),
    "blocks": ({"blocks": 24}, lambda bare: None),
    "blocks, with a watermark": (
        {"blocks": 24, "configure": scheduling(watermark=0.1)},
        lambda bare: None,
    ),
    "blocks of drafts": ({"blocks": 26, "configure": drafts(3, slots=2)}, lambda bare: None),
    "one adapter": ({"configure": adapters(1)}, lambda bare: None),
    "two adapters": ({"configure": adapters(2)}, lambda bare: None),
}


class Beside:
    """Urgent requests of one script, alone or beside best-effort decodes that may all ride."""

    def __init__(self, bare: BareScheduler, seed: int, riders: int) -> None:
        self.bare = bare
        self.rng = random.Random(seed)
        self.most = 5 if bare.scheduler.lora_config else 0
        self.rode = 0
        others = random.Random(-seed)
        for i in range(riders):
            bare.add(f"b{i}", BE, others.randint(5, 20), 400, adapter=self.adapter(others))
        for _ in range(riders):  # until all that can be have been let in
            bare.begin()
            bare.end()

    def adapter(self, rng: random.Random) -> int | None:
        return rng.choice((None, 1, 2, 3)) if self.most else None

    def steps(self) -> list[dict[str, int]]:
        """What the urgent requests get in each step."""
        rng, bare, got = self.rng, self.bare, []
        left = 8
        while left or any(name.startswith("l") for name in bare.scheduler.requests):
            while left and rng.random() < 0.4:
                left -= 1
                prompt, out = rng.randint(2, 60), rng.randint(1, 9)  # vLLM pads one token
                bare.add(f"l{left}", LS, prompt, out, adapter=self.adapter(rng))
            if any(name.startswith("l") for name in bare.scheduler.requests):
                bare.scheduler.use_plan(Run(LS, riders=99))
                tokens = bare.begin()
                self.rode += sum(name.startswith("b") for name in tokens)
                got.append({n: t for n, t in tokens.items() if n.startswith("l")})
                bare.end()
            assert len(got) < 500, "no end in sight"
        return got


@pytest.mark.parametrize("limit", LIMITS)
def test_riders_change_no_step_of_urgent_requests(make: Make, limit: str) -> None:
    arguments, change = LIMITS[limit]
    rode = 0
    for seed in range(12):
        runs = []
        for riders in (0, 4):
            bare = make(**({"seqs": 6, "tokens": 128, "max_preemptions": 1000} | arguments))
            change(bare)
            beside = Beside(bare, seed, riders)
            runs.append(beside.steps())
            rode += beside.rode
        alone, together = runs
        assert together == alone, f"seed {seed}"
    # Or it would not have tested what it is for.
    assert rode > 20


CACHE = 30  # embeddings


def encoder(bare: BareScheduler, compute: int = CACHE) -> BareScheduler:
    """Let a scheduler encode images, as for a multimodal model with a small encoder cache."""
    bare.scheduler.max_num_encoder_input_tokens = compute
    manager = bare.scheduler.encoder_cache_manager
    manager.cache_size = CACHE
    manager.reset()
    return bare


SCENARIOS: dict[str, Scenario] = {
    "a rider whose adapter the leading class does not use stays behind": (
        {"configure": adapters(1)},
        [
            add("b1", BE, 16, out=6, adapter=1),
            step(b1=16),
            add("l1", LS, 16, out=3, adapter=2),
            step(l1=16),
            steps(2, l1=1),
            steps(5, b1=1),
            idle(),
        ],
    ),
    "one with the same adapter rides, or without any": (
        {"configure": adapters(1)},
        [
            add("b1", BE, 16, out=2, adapter=1),
            add("b2", BE, 16, out=2),
            step(b1=16, b2=16),
            add("l1", LS, 16, out=1, adapter=1),
            step(l1=16, b1=1, b2=1),
            idle(),
        ],
    ),
    "the adapter of an urgent request that waits is kept free": (
        {"configure": adapters(2), "seqs": 3},
        [
            add("b1", BE, 16, out=2, adapter=1),
            step(b1=16),
            add("l1", LS, 16, out=2, adapter=2),
            add("l2", LS, 16, out=2, adapter=3),
            step(l1=16, l2=16),
            step(l1=1, l2=1),
            step(b1=1),
            idle(),
        ],
    ),
    "riders of several classes share what is left of the adapters": (
        {"configure": adapters(2), "classes": THREE_CLASSES},
        [
            add("x1", BATCH, 16, out=3, adapter=2),
            step(x1=16),
            add("a1", AGENT, 16, out=3, adapter=1),
            step(a1=16, x1=1),
            add("l1", LS, 16, out=1, adapter=3),
            step(l1=16, a1=1),
        ],
    ),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_adapters(make: Make, name: str) -> None:
    arguments, events = SCENARIOS[name]
    play(make(**({"ride_slowdown": 2} | arguments)), events)


def test_more_adapters_than_slots_among_the_admitted(make: Make) -> None:
    """A prompt that waits for a place in the encoder cache is not in the step, nor its adapter."""
    bare = encoder(make(tokens=128, configure=adapters(1)))
    bare.add("first", BE, 60, out=2, adapter=1, images=[(5, 20), (30, 20)])
    bare.scheduler.encoder_cache_manager.num_freeable_slots -= 20  # somebody else's images
    bare.scheduler.encoder_cache_manager.num_free_slots -= 20
    ran = {bare.clock.now: bare.begin()}
    bare.end()
    bare.add("second", BE, 60, out=2, adapter=2)
    bare.begin()
    bare.end()
    assert bare.running() == {"first", "second"}, ran
    bare.scheduler.encoder_cache_manager.num_freeable_slots += 20
    bare.scheduler.encoder_cache_manager.num_free_slots += 20
    while bare.scheduler.has_requests():
        tokens = bare.begin()
        assert len(tokens) <= 1
        bare.end()
    assert set(bare.finished) == {"first", "second"}


def test_held_back_prompts_do_not_keep_the_encoder_cache(make: Make) -> None:
    """An urgent image finds its place at once, and the other is encoded again."""
    bare = encoder(make(tokens=32))
    bare.add("b", BE, 60, out=1, images=[(10, 30)])
    assert bare.begin() == {"b": 32}
    assert bare.outputs[-1].scheduled_encoder_inputs == {"b": [0]}
    bare.end()
    bare.add("l1", LS, 16, out=30)
    bare.begin()
    bare.end()
    bare.add("l2", LS, 28, out=1, images=[(2, 20)])
    assert bare.begin() == {"l1": 1, "l2": 28}
    bare.end()
    bare.abort("l1")
    assert bare.begin() == {"b": 28}
    assert bare.outputs[-1].scheduled_encoder_inputs == {"b": [0]}
    bare.end()
    bare.assert_idle()


def test_nobody_gives_up_images_if_that_is_not_enough(make: Make) -> None:
    bare = encoder(make(tokens=32))
    manager = bare.scheduler.encoder_cache_manager
    bare.add("b", BE, 60, out=1, images=[(10, 25)])
    bare.begin()
    bare.end()
    manager.num_free_slots -= 5  # somebody else's
    manager.num_freeable_slots -= 5
    bare.add("l1", LS, 16, out=2)
    bare.add("l2", LS, 32, out=1, images=[(2, 28)])
    assert bare.begin() == {"l1": 16, "l2": 2}
    bare.end()
    assert manager.get_cached_input_ids(bare.requests["b"]) == {0}
    assert bare.begin() == {"l1": 1}
    bare.end()
    # Nothing is left to run but b, whose end makes room.
    assert bare.begin() == {"b": 28}


def test_sessions_of_other_classes_hold_no_row(make: Make) -> None:
    """A streamed request that waits for its client is in no step."""
    bare = make(seqs=2)
    for i in range(2):
        bare.add(f"b{i}", BE, 16, out=1, resumable=True)
    bare.begin()
    bare.end()
    assert bare.scheduler.num_waiting_for_streaming_input == 2
    for i in range(3):
        bare.add(f"l{i}", LS, 16, out=1)
    assert bare.begin() == {"l0": 16, "l1": 16}
    bare.end()
    # Those of its own class count, as in vLLM.
    bare.add("l3", LS, 16, out=1, resumable=True)
    assert bare.begin() == {"l2": 16, "l3": 16}
    bare.end()
    bare.add("l4", LS, 16, out=2)
    bare.add("l5", LS, 16, out=2)
    assert bare.begin() == {"l4": 16}


@pytest.mark.parametrize("pause", [True, False])
def test_a_step_of_riders_alone_does_not_nest(make: Make, pause: bool) -> None:
    """Whatever keeps the leading class out of it: it would run on top of its own class."""
    bare = make(classes=THREE_CLASSES, ride_slowdown=100)
    bare.add("x", BATCH, 16, out=5)
    bare.begin()
    bare.end()
    bare.add("a", AGENT, 64, out=1)
    bare.scheduler.use_plan(Run(1))
    assert bare.begin() == {"a": 64}
    bare.suspend()
    bare.add("l", LS, 16, out=1)
    if pause:
        bare.scheduler.set_pause_state(PauseState.PAUSED_NEW)
    bare.scheduler.use_plan(Run(0, riders=9))
    assert bare.begin() == ({} if pause else {"l": 16, "x": 1})
