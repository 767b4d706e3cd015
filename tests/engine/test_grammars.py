# SPDX-License-Identifier: Apache-2.0
"""Grammars of less urgent requests cost the engine no more than they may."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from vllm.v1.request import Request
from vllm.v1.structured_output.backend_guidance import GuidanceBackend
from vllm.v1.structured_output.request import StructuredOutputRequest

from benchmarks.models.tokenizer import EOS
from tests.engine.bare_scheduler import BE, LS, BareScheduler
from tests.engine.grammars import Anything, constraint, request
from tests.engine.scripted import EngineFor, ScriptedEngine, stop_everywhere
from tests.engine.test_token_equality import assert_same, prompt
from vllm_qllm.engine.metered_grammar import MeteredGrammar

CUBIC = 'root ::= s\ns ::= s s | s s s | "a" | "b"'
TOKENS = 700  # of which the last would take the engine a second
BOTH: list[dict[str, Any]] = [{"name": "urgent", "max_priority": 0}, {"name": "other"}]


def with_limits(**limits: Any) -> dict[str, Any]:
    """A priority configuration whose less urgent class has these limits."""
    return stop_everywhere() | {"classes": [BOTH[0], BOTH[1] | limits]}


def cubic(engine: ScriptedEngine, priority: int, tokens: int = TOKENS) -> str:
    # Without a word at which it may end: what the model says then is nobody's.
    more = {"structured_outputs": constraint(grammar=CUBIC), "logit_bias": {EOS: -100.0}}
    return engine.add(prompt(3, 40), tokens, priority, **more)


def test_a_request_ends_when_its_grammar_costs_too_much(engine_for: EngineFor) -> None:
    engine = engine_for(priority_config=with_limits(grammar_ms=0.5))
    regex = {"structured_outputs": constraint(regex="[a-f]{12}")}
    specs: list[tuple[int, int, dict[str, Any]]] = [(1, BE, regex), (2, LS, {}), (4, BE, {})]
    expected = [engine.alone(prompt(seed, 60), 12, **more) for seed, _, more in specs]
    costly = cubic(engine, BE)
    ids = [engine.add(prompt(seed, 60), 12, priority, **more) for seed, priority, more in specs]
    engine.run()
    result = engine.results[costly]
    assert result.finish_reason == "error"
    assert isinstance(result.stop_reason, str)
    assert "classes[other].grammar_ms" in result.stop_reason and "0.5 ms" in result.stop_reason
    assert 1 < len(result.tokens) < TOKENS / 2
    for request_id, reference in zip(ids, expected, strict=True):
        assert_same(engine.results[request_id], reference, request_id)
    engine.reset()  # every block is free


def test_the_most_urgent_class_is_not_limited(engine_for: EngineFor) -> None:
    engine = engine_for(priority_config=with_limits(grammar_ms=0.001))
    urgent, other = cubic(engine, LS, 60), cubic(engine, BE, 60)
    engine.run()
    assert engine.results[urgent].finish_reason == "length"
    assert engine.results[other].finish_reason == "error"
    engine.reset()


def test_no_limit_is_none(engine_for: EngineFor) -> None:
    engine = engine_for(priority_config=with_limits(grammar_ms=None))
    request_id = cubic(engine, BE, 60)
    engine.run()
    assert engine.results[request_id].finish_reason == "length"
    engine.reset()


def test_a_request_does_not_wait_for_its_grammar_for_ever(
    engine_for: EngineFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_for(priority_config=with_limits(grammar_wait_ms=100))
    manager = engine.core.structured_output_manager
    may_end, create = threading.Event(), manager._create_grammar

    def slow_if_less_urgent(request: Request) -> Any:
        assert not request.priority or may_end.wait(30)
        return create(request)

    monkeypatch.setattr(manager, "_create_grammar", slow_if_less_urgent)
    grammar = {"structured_outputs": constraint(regex="[ab]{4}")}
    ids = [engine.add(prompt(n, 40), 4, BE, **grammar) for n in (1, 2, 3)]
    plain = engine.add(prompt(4, 40), 4, BE)
    urgent = engine.add(prompt(5, 40), 4, LS, **grammar)
    try:
        engine.run(steps=10**9)
    finally:
        may_end.set()
    reasons = [str(engine.results[i].stop_reason) for i in ids]
    assert {engine.results[i].finish_reason for i in ids} == {"error"}
    assert all("classes[other].grammar_wait_ms" in reason for reason in reasons)
    assert ["being compiled" in reason for reason in reasons] == [True, False, False]
    assert engine.results[plain].finish_reason == engine.results[urgent].finish_reason == "length"
    engine.reset()


def limited(bare: BareScheduler, name: str, seconds: float) -> MeteredGrammar:
    """A less urgent request whose grammar takes so long for each token, after its prompt."""
    arrived = bare.add(name, BE, 3, out=64)
    grammar = MeteredGrammar(Anything(seconds))
    arrived.structured_output_request = StructuredOutputRequest(constraint(regex="a"), grammar)
    return grammar


def test_a_step_takes_the_grammars_that_it_can_afford(make: Callable[..., BareScheduler]) -> None:
    bare = make(classes=[BOTH[0], BOTH[1] | {"grammar_ms": 20}])
    for name in ("a", "b", "c"):
        limited(bare, name, 0.015)
    bare.add("plain", BE, 3, out=64)
    limited(bare, "cheap", 0.0)
    bare.begin()
    bare.end()
    bare.begin()  # max_num_seqs is four, so that one waited
    bare.end()
    taken = []
    for _ in range(6):
        dear = bare.begin().keys() - {"plain", "cheap"}
        assert len(dear) == 1, dear
        taken += dear
        bare.end()
    assert sorted(taken) == ["a", "a", "b", "b", "c", "c"]  # in turn
    assert set(taken[:3]) == {"a", "b", "c"}


def test_riders_do_not_bring_dear_grammars_along(make: Callable[..., BareScheduler]) -> None:
    bare = make(classes=[BOTH[0], BOTH[1] | {"grammar_ms": 20}], ride_slowdown=100)
    limited(bare, "dear", 0.015)
    limited(bare, "cheap", 0.0)
    for _ in range(2):
        bare.begin()
        bare.end()
    bare.add("urgent", LS, 3, out=64)
    bare.begin()
    bare.end()
    for _ in range(3):
        assert set(bare.begin()) == {"urgent", "cheap"}
        bare.end()


def test_threads_do_not_share_what_guidance_compiles(strict_engine: ScriptedEngine) -> None:
    manager = strict_engine.core.structured_output_manager
    tokenizer, vocab_size = manager.tokenizer, manager.vllm_config.model_config.get_vocab_size()
    backend, manager.backend = (
        manager.backend,
        GuidanceBackend(manager.vllm_config, tokenizer=tokenizer, vocab_size=vocab_size),
    )
    try:
        grammar = manager._create_grammar(request(BE))
        assert grammar.accept_tokens("r", tokenizer.encode("abab", add_special_tokens=False))
        assert not hasattr(manager.backend, "serialized_grammar")
    finally:
        manager.backend = backend
