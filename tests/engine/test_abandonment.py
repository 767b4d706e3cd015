# SPDX-License-Identifier: Apache-2.0
"""A real step is given up for its KV blocks: who needs them gets them, and nobody loses a token."""

from __future__ import annotations

from typing import Any

import pytest

from tests.engine.scripted import BE, LS, EngineFor, ScriptedEngine, stop_everywhere
from tests.engine.test_suspension import at_suspension
from tests.engine.test_token_equality import assert_same, prompt
from tests.kv.spilling import assert_nothing_kept, counters, spill_in_turn, spilling

# Blocks of 32 tokens, 12 usable. The long request holds eight of them, the urgent one needs five.
FEW: dict[str, Any] = {"num_gpu_blocks_override": 13, "max_model_len": 384}
LONG, URGENT = prompt(1, 250), prompt(2, 150)


def give_up_at(engine: ScriptedEngine, stop: int, *, after: int = 0) -> None:
    """An urgent request comes at suspension number ``stop`` of the long one.

    Args:
        after: whole steps of the long request before that.
    """
    expected = [engine.alone(LONG, 5), engine.alone(URGENT, 4)]
    free, before = engine.free_blocks, counters(engine)["abandoned"]
    ids = [engine.add(LONG, 5, BE)]
    for _ in range(after):
        engine.step()
    at_suspension(engine, stop, lambda: ids.append(engine.add(URGENT, 4, LS)))
    engine.step()
    assert counters(engine)["abandoned"] - before == (1 if after else len(LONG))
    assert len(engine.results[ids[0]].tokens) == after
    engine.run()
    for request_id, reference in zip(ids, expected, strict=True):
        assert_same(engine.results[request_id], reference, f"{request_id}, stop {stop}")
    engine.reset()
    assert engine.free_blocks == free


@pytest.mark.covers("Out of KV blocks", "eager", suspended=True)
@pytest.mark.parametrize("yield_points", ["layer", "expert"])
@pytest.mark.parametrize("executor", ["uni", "mp"])
def test_wherever_it_stands(engine_for: EngineFor, yield_points: str, executor: str) -> None:
    engine = engine_for(
        distributed_executor_backend=executor, priority_config=stop_everywhere(yield_points), **FEW
    )
    for stop in range(1, engine.core.priority_controller.yield_points + 1):
        give_up_at(engine, stop)
    give_up_at(engine, 2, after=2)


@pytest.mark.covers("Out of KV blocks", "compiled", suspended=True)
def test_inside_compiled_graphs(engine_for: EngineFor) -> None:
    engine = engine_for(enforce_eager=False, priority_config=stop_everywhere("expert"), **FEW)
    for stop in (1, 2, 3, 7):
        give_up_at(engine, stop)
    give_up_at(engine, 2, after=2)


def test_what_it_had_half_written_is_not_hit(engine_for: EngineFor) -> None:
    engine = engine_for(**FEW)
    expected = engine.alone(LONG, 5)
    gone = engine.add(LONG, 5, BE)

    def arrive_and_abort() -> None:
        engine.add(URGENT, 4, LS)
        engine.abort(gone)

    at_suspension(engine, 2, arrive_and_abort)
    engine.step()
    assert engine.results[gone].tokens == []
    again = engine.add(LONG, 5, BE)
    engine.run()
    assert_same(engine.results[again], expected, "the same prompt again")
    engine.reset()


def test_what_another_of_its_requests_hit_is_computed_again(engine_for: EngineFor) -> None:
    engine = engine_for(**FEW)
    shared = prompt(6, 200)
    expected = [engine.alone(shared, 5), engine.alone(URGENT, 4)]
    before = counters(engine)["abandoned"]
    gone, other = engine.add(shared, 5, BE), engine.add(shared, 5, BE)
    urgent = ""

    def arrive_and_abort() -> None:
        nonlocal urgent
        step = engine.core.scheduler.flight.suspended[-1]
        assert step.request_ids == {gone: 200, other: 8}, "it counts six blocks as computed"
        urgent = engine.add(URGENT, 4, LS)
        engine.abort(gone)

    at_suspension(engine, 2, arrive_and_abort)
    engine.step()
    assert counters(engine)["abandoned"] > before
    engine.run()
    for request_id, reference in zip((other, urgent), expected, strict=True):
        assert_same(engine.results[request_id], reference, request_id)
    engine.reset()


def test_one_level_after_the_other(engine_for: EngineFor) -> None:
    """The innermost step is given up first, and those below it if that is not enough."""
    classes = [{"name": "chat", "max_priority": 0}, {"name": "agent", "max_priority": 10}]
    config = {**stop_everywhere(), "classes": [*classes, {"name": "batch"}]}
    engine = engine_for(priority_config=config, **FEW)
    prompts = {20: prompt(1, 200), 10: prompt(2, 100), 0: prompt(3, 340)}
    expected = {p: engine.alone(tokens, 3) for p, tokens in prompts.items()}
    ids = {20: engine.add(prompts[20], 3, 20)}
    depths = []

    def arrive() -> None:
        depths.append(len(engine.core.scheduler.flight.suspended))
        for priority, depth in ((10, 1), (0, 2)):
            if depths[-1] == depth and priority not in ids:
                ids[priority] = engine.add(prompts[priority], 3, priority)

    engine.on_suspended = arrive
    recorder = engine.core.scheduler.accounting._recorder
    before = [recorder._slots[i] for i in recorder._abandoned]
    engine.step()
    grown = [recorder._slots[i] - b for i, b in zip(recorder._abandoned, before, strict=True)]
    assert max(depths) == 2 and grown == [0, 100, 200]
    engine.run()
    for priority, reference in expected.items():
        assert_same(engine.results[ids[priority]], reference, f"priority {priority}")
    engine.reset()


@pytest.mark.covers("KV spilled to the host", "eager", suspended=True)
def test_what_was_computed_before_it_is_spilled(
    engine_for: EngineFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = spilling(engine_for, blocks=17)
    spill_in_turn(monkeypatch, [True])
    long, urgent = prompt(4, 400), prompt(5, 300)
    expected = [engine.alone(long, 5), engine.alone(urgent, 4)]
    before = counters(engine)
    ids = [engine.add(long, 5, BE)]
    engine.step()
    at_suspension(engine, 2, lambda: ids.append(engine.add(urgent, 4, LS)))
    engine.step()
    given_up = counters(engine)["abandoned"] - before["abandoned"]
    assert given_up == 400 - 256, "the second part of its prompt"
    engine.run()
    assert counters(engine)["saved"] - before["saved"] == 256, "the first part was restored"
    for request_id, reference in zip(ids, expected, strict=True):
        assert_same(engine.results[request_id], reference, request_id)
    assert_nothing_kept(engine)
    engine.reset()
