# SPDX-License-Identifier: Apache-2.0
"""One look counts what policy, gauges and parking ask for, and is not taken twice."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from vllm.v1.request import RequestStatus

from tests.engine.bare_scheduler import BE, LS, Make
from vllm_qllm.engine.census import Census, ClassRecord
from vllm_qllm.engine.flight import Flight
from vllm_qllm.engine.step import Step

BLOCKED = RequestStatus.WAITING_FOR_STREAMING_REQ


def request(name: str, level: int, missing: int = 1, output: int = 1, **more: Any) -> Any:
    return SimpleNamespace(
        request_id=name,
        level=level,
        num_tokens=100,
        num_computed_tokens=100 - missing,
        num_output_tokens=output,
        structured_output_request=None,
        **more,
    )


def census_of(running: list[Any], flight: Flight, **more: Any) -> Census:
    requests: Any = SimpleNamespace(
        levels=range(2),
        admitted=running,
        level=lambda r: r.level,
        count_waiting=lambda level: 3 * level,
        **more,
    )
    blocks: Any = SimpleNamespace(count=lambda request: 7)
    return Census(requests, flight, blocks)


def start(flight: Flight, **tokens: int) -> Step:
    step = Step(flight.next_number(), 1, 1, True, None, False, tokens)
    flight.start(step)
    return step


def test_each_request_is_in_one_state() -> None:
    flight = Flight(lanes=2)
    start(flight, prompt=8, decode=1).suspend(1.0, 1)
    start(flight, urgent=1)
    running = [
        request("prompt", 1, missing=20, output=0),
        request("decode", 1),
        request("urgent", 0),
        request("parked", 1, missing=30, output=0),
        # A prompt that is computed again, all but its last token.
        request("again", 1, missing=1, output=4),
    ]
    census = census_of(running, flight)
    urgent, less = census.take()
    assert urgent == ClassRecord(0, waiting=0, decoding=1)
    assert less == ClassRecord(
        1,
        waiting=3,
        prefilling=1,
        decoding=1,
        suspended=2,
        suspended_prompts=True,
        suspended_decodes=True,
        prompt_tokens=30,
    )
    assert (urgent.running, less.running) == (1, 2)
    assert census.parked() == [(0, 0), (2, 14)]


def test_a_look_is_shared_until_something_happens() -> None:
    running: list[Any] = []
    census = census_of(running, Flight(lanes=2))
    first = census.take()
    running.append(request("a", 0))
    assert census.take() is first
    census.outdated()
    assert census.take()[0].decoding == 1


def test_arrivals_look_at_nobody(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A burst is taken in while a step is suspended: each of it must cost little."""
    bare = make(seqs=8)
    for number in range(4):
        bare.add(f"b{number}", BE, 8, out=9)
    bare.begin()
    looks: list[int] = []
    look = Census._look
    monkeypatch.setattr(Census, "_look", lambda self: looks.append(1) or look(self))  # type: ignore[func-returns-value]
    for number in range(50):
        bare.add(f"l{number}", LS, 8)
    assert not looks
    bare.end()
    assert len(looks) == 1


def test_what_is_blocked_and_what_compiles() -> None:
    compiling = request("c", 0, status=RequestStatus.WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR)
    compiling.structured_output_request = SimpleNamespace(grammar=None)
    census = census_of([], Flight(2), deferred=[compiling, request("s", 1, status=BLOCKED)])
    assert census.blocked() == [1, 1]
    assert census.compiling(1) and not census.compiling(0)
    compiling.structured_output_request.grammar = "ready"
    assert census.blocked() == [0, 1] and not census.compiling(1)
