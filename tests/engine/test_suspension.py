# SPDX-License-Identifier: Apache-2.0
"""What may happen while a step is suspended, on a real engine."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tests.engine.scripted import BE, LS, EngineFor, ScriptedEngine
from tests.engine.test_token_equality import assert_same, prompt
from vllm_qllm.policy import Resume


def at_suspension(engine: ScriptedEngine, number: int, action: Callable[[], None]) -> None:
    """Do ``action`` at the ``number``-th suspension from now (counted from 1)."""
    seen = 0

    def count() -> None:
        nonlocal seen
        seen += 1
        if seen == number:
            action()

    engine.on_suspended = count


def test_urgent_request_finishes_before_the_suspended_step(strict_engine: ScriptedEngine) -> None:
    engine = strict_engine
    engine.reset()
    slow = engine.add(prompt(1, 250), 4, BE)
    fast: list[str] = []
    at_suspension(engine, 2, lambda: fast.append(engine.add(prompt(2, 30), 5, LS)))
    engine.step()
    assert engine.results[fast[0]].finish_reason is not None, "five steps nested in one"
    assert len(engine.results[slow].tokens) == 1
    engine.run()
    assert len(engine.results[slow].tokens) == 4


def test_a_corrupted_kv_block_changes_the_answer(strict_engine: ScriptedEngine) -> None:
    """The equality tests rest on this: outputs depend on all of the KV cache."""
    engine = strict_engine
    expected = engine.alone(prompt(3, 250), 8)
    request_id = engine.add(prompt(3, 250), 8, BE)

    def corrupt() -> None:
        scheduler = engine.core.scheduler
        block = scheduler.kv_cache_manager.get_block_ids(request_id)[0][1]
        runner = engine.core.model_executor.driver_worker.worker.model_runner
        # Before layer 3 attends: the first two layers have been written and read.
        for cache in runner.kv_caches[:2]:
            assert isinstance(cache, torch.Tensor)
            cache[block].neg_()

    at_suspension(engine, 3, corrupt)
    engine.run()
    assert engine.results[request_id].tokens != expected.tokens
    engine.reset()


@pytest.mark.covers("Aborts", "eager", suspended=True)
@pytest.mark.parametrize("who", ["suspended", "nested", "waiting"])
def test_aborts_while_suspended(strict_engine: ScriptedEngine, who: str) -> None:
    engine = strict_engine
    expected = {n: engine.alone(prompt(n, 100), 6) for n in (1, 2, 3)}
    free = engine.free_blocks
    ids = {1: engine.add(prompt(1, 100), 6, BE)}

    def arrive_and_abort() -> None:
        ids[2] = engine.add(prompt(2, 100), 6, LS)
        ids[3] = engine.add(prompt(3, 100), 6, BE)
        engine.abort({"suspended": ids[1], "nested": ids[2], "waiting": ids[3]}[who])
        if who == "suspended":
            held = engine.core.scheduler.kv_cache_manager.get_block_ids(ids[1])[0]
            assert held, "blocks of a suspended step stay until it completes"

    at_suspension(engine, 2, arrive_and_abort)
    engine.run()
    gone = {"suspended": 1, "nested": 2, "waiting": 3}[who]
    for number in {1, 2, 3} - {gone}:
        assert_same(engine.results[ids[number]], expected[number], f"request {number}")
    assert engine.results[ids[gone]].finish_reason is None
    assert len(engine.results[ids[gone]].tokens) < 6
    engine.reset()
    assert engine.free_blocks == free


@pytest.mark.covers("Out of KV blocks", "eager")
def test_urgent_request_takes_blocks_of_held_back_work(engine_for: EngineFor) -> None:
    """Invariant 4, with a pool in which best-effort contexts leave no room."""
    engine = engine_for(num_gpu_blocks_override=18, max_model_len=512)
    prompts = [prompt(n, 220) for n in (1, 2)]
    expected = [engine.alone(p, 20) for p in prompts]
    urgent = prompt(9, 200)
    expected_urgent = engine.alone(urgent, 4)
    ids = [engine.add(p, 20, BE) for p in prompts]
    for _ in range(4):
        engine.step()
    assert engine.core.scheduler.get_request_counts()[0] == 2
    urgent_id = engine.add(urgent, 4, LS)
    engine.step()
    assert len(engine.results[urgent_id].tokens) == 1, "admitted at once"
    engine.run()
    assert_same(engine.results[urgent_id], expected_urgent, "urgent")
    for request_id, reference in zip(ids, expected, strict=True):
        assert_same(engine.results[request_id], reference, "preempted")


@pytest.mark.covers("Three classes", "eager", suspended=True)
def test_three_classes_nest_two_deep(engine_for: EngineFor) -> None:
    classes = [
        {"name": "chat", "max_priority": 0},
        {"name": "agent", "max_priority": 10},
        {"name": "batch"},
    ]
    config = {"policy": "tests.engine.scripted:StopEverywhere", "classes": classes}
    engine = engine_for(priority_config=config)
    prompts = {20: prompt(1, 250), 10: prompt(2, 200), 0: prompt(3, 50)}
    expected = {p: engine.alone(tokens, 5) for p, tokens in prompts.items()}
    ids: dict[int, str] = {}
    depths = []

    def arrive() -> None:
        depth = len(engine.core.scheduler.flight.suspended)
        depths.append(depth)
        if depth == 1 and 10 not in ids:
            ids[10] = engine.add(prompts[10], 5, 10)
        if depth == 2 and 0 not in ids:
            ids[0] = engine.add(prompts[0], 5, 0)

    ids[20] = engine.add(prompts[20], 5, 20)
    engine.on_suspended = arrive
    engine.run()
    assert max(depths) == 2
    for priority, reference in expected.items():
        assert_same(engine.results[ids[priority]], reference, f"priority {priority}")


def test_an_invalid_answer_of_a_policy_stops_the_engine(
    strict_engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = strict_engine
    engine.reset()
    monkeypatch.setattr(engine.core.scheduler.priority_policy, "plan", lambda view: Resume())
    request_id = engine.add(prompt(1, 20), 2, BE)
    with pytest.raises(RuntimeError, match=r"StopEverywhere.*Resume.*allowed: Run of a level"):
        engine.step()
    engine.abort(request_id)
    monkeypatch.undo()
    engine.run()
