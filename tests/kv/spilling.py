# SPDX-License-Identifier: Apache-2.0
"""An engine with too few KV blocks, and a load under which requests lose theirs."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from tests.engine.scripted import BE, LS, EngineFor, ScriptedEngine, stop_everywhere
from tests.engine.test_token_equality import assert_same, prompt
from vllm_qllm.kv.costs import Costs
from vllm_qllm.kv.file_tier import FileTier

# Blocks of 32 tokens; one is vLLM's own, 16 hold the longest request.
SMALLEST, SMALL = 17, 26


def any_requests(last_seed: int) -> st.SearchStrategy[tuple[int, int, int, int, int]]:
    """Requests of any length that fits; those of one seed share the whole prompt."""
    return st.tuples(
        st.integers(0, last_seed),
        st.integers(2, 440),  # prompt tokens
        st.sampled_from([0, 64, 160]),  # of which shared with every other request
        st.integers(1, 30),  # output tokens
        st.sampled_from([LS, BE, BE, BE]),
    )


def spilling(
    engine_for: EngineFor,
    blocks: int = SMALL,
    config: dict[str, Any] | None = None,
    **engine_args: Any,
) -> ScriptedEngine:
    """An engine with few KV blocks and room for eight requests on the host.

    Args:
        config: fields of the priority configuration.
        engine_args: of the engine.
    """
    return engine_for(
        num_gpu_blocks_override=blocks,
        max_model_len=512,
        priority_config={
            **stop_everywhere(),
            "spill_bytes": 2**24,
            "reserved_kv": 0.0,
            "max_preemptions": 1000,
            **(config or {}),
        },
        **engine_args,
    )


def in_file(directory: Path) -> dict[str, Any]:
    """Spill into a file."""
    return {"spill_path": str(directory)}


def damage(tier: FileTier, slot: int) -> None:
    """Change one bit of what a file holds in this slot."""
    place = slot * tier._size + 9
    (byte,) = os.pread(tier._file, 1, place)
    os.pwrite(tier._file, bytes([byte ^ 16]), place)


def counters(engine: ScriptedEngine) -> dict[str, float]:
    """Of the less urgent class."""
    recorder = engine.core.scheduler.accounting._recorder
    slots = recorder._slots
    return {
        "preempted": slots[recorder._preemptions[BE]],
        "saved": slots[recorder._saved[BE]],
        "again": slots[recorder._recomputed[BE]],
        "abandoned": slots[recorder._abandoned[BE]],
        "errors": slots[recorder._spill_errors[LS]] + slots[recorder._spill_errors[BE]],
    }


def spill_in_turn(monkeypatch: pytest.MonkeyPatch, spilled: list[bool]) -> None:
    """Whatever it costs, spill a request that loses its blocks or compute it again, in turn."""
    chosen = itertools.cycle(spilled)
    monkeypatch.setattr(Costs, "recompute", lambda self, tokens: 1.0)
    monkeypatch.setattr(Costs, "restore", lambda self, out, back: 0.0 if next(chosen) else 2.0)


def assert_nothing_kept(engine: ScriptedEngine) -> None:
    """Nothing of any request is on the host or remembered."""
    scheduler = engine.core.scheduler
    slots = scheduler.spill.slots
    slots.step_is_complete()
    assert slots.free == slots.count
    kept = [d for d in vars(scheduler.parking).values() if isinstance(d, dict)]
    assert kept and not any(kept), kept


def squeeze(engine: ScriptedEngine, at: tuple[int, ...]) -> dict[str, float]:
    """Four requests lose their blocks to urgent ones, and get the tokens that they get alone.

    Args:
        at: after how many suspensions an urgent request comes that needs half of the blocks.

    Returns:
        How much the counters grew.
    """
    # Two share their prompt: a block that one failed to restore must not be hit by the other.
    specs = [(prompt(i // 2, 150), 30, BE) for i in range(4)]
    expected = [engine.alone(tokens, out) for tokens, out, _ in specs]
    before = counters(engine)
    ids = [engine.add(*spec) for spec in specs]
    stops = 0

    def arrive() -> None:
        nonlocal stops
        stops += 1
        if stops in at:
            engine.add(prompt(stops, 450), 2, LS)

    engine.on_suspended = arrive
    engine.run()
    for request_id, reference in zip(ids, expected, strict=True):
        assert_same(engine.results[request_id], reference, request_id)
    after = counters(engine)
    assert stops > max(at), "its steps are suspended"
    assert_nothing_kept(engine)
    engine.reset()
    return {name: after[name] - before[name] for name in after}
