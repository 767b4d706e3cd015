# SPDX-License-Identifier: Apache-2.0
"""A scheduler without a model, for tests that need no engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.engine.bare_scheduler import BareScheduler, Clock


@pytest.fixture(scope="session")
def scheduler_config(tiny_model: Path) -> Any:
    """What ``vllm serve --priority-policy strict`` would configure for a tiny model."""
    from vllm.engine.arg_utils import EngineArgs
    from vllm.plugins import load_general_plugins

    load_general_plugins()
    return EngineArgs(
        model=str(tiny_model),
        dtype="float32",
        enforce_eager=True,
        max_model_len=1024,
        max_num_batched_tokens=64,
        max_num_seqs=4,
        block_size=16,
        enable_prefix_caching=True,
        priority_config={"policy": "strict"},
    ).create_engine_config()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Virtual time for the whole of ``vllm_qllm.engine``."""
    clock = Clock()
    for name in ("scheduler", "requests", "progress", "accounting"):
        monkeypatch.setattr(f"vllm_qllm.engine.{name}.time", clock)
    return clock


@pytest.fixture
def make(scheduler_config: Any, clock: Clock) -> Callable[..., BareScheduler]:
    """Makes schedulers: ``make(blocks=64, seqs=4, tokens=64, **priority_config)``."""
    return lambda **arguments: BareScheduler(scheduler_config, clock, **arguments)
