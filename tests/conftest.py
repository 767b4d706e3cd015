# SPDX-License-Identifier: Apache-2.0
"""Fixtures for everything that runs a real engine, and the page that the tests make."""

from __future__ import annotations

import os

# Engines of the tests live in the test process; servers are processes of their own anyway.
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from tests.compatibility import Compatibility
from tests.workers import Shares, Worker

if TYPE_CHECKING:
    from tests.engine.scripted import ScriptedEngine


collect_ignore = ["gpu"]  # `make test-gpu` names it
# How long an example takes says how busy the machine is.
settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("here")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-compatibility", action="store_true", help="docs/compatibility.md")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Compatibility(config.option.write_compatibility))
    # Of pytest-xdist, which sets it in processes that run a share of the tests.
    is_worker = hasattr(config, "workerinput")
    config.pluginmanager.register(Worker(config) if is_worker else Shares())


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Mixtral in float32 whose outputs depend on all of their context."""
    from benchmarks.models.model import make

    return make("tiny-mixtral", tmp_path_factory.mktemp("models") / "tiny-mixtral")


@pytest.fixture(scope="session")
def engine_for(tiny_model: Path) -> Iterator[Callable[..., ScriptedEngine]]:
    """Gives the engine with the asked-for arguments; the last one is kept for the next test.

    Engines in one process share vLLM's process-wide state, so only one lives at a time.
    """
    live: list[tuple[str, ScriptedEngine]] = []

    def engine_for(**engine_args: Any) -> ScriptedEngine:
        from tests.engine.scripted import ScriptedEngine

        key = repr(sorted(engine_args.items()))
        if live and (live[0][0] != key or live[0][1].broken):
            live.pop()[1].close()
        if not live:
            model = Path(engine_args.pop("model", tiny_model))
            live.append((key, ScriptedEngine(model, **engine_args)))
        live[0][1].reset()
        return live[0][1]

    yield engine_for
    if live:
        live.pop()[1].close()


@pytest.fixture
def strict_engine(engine_for: Callable[..., ScriptedEngine]) -> ScriptedEngine:
    """An idle engine whose steps stop at every yield point."""
    return engine_for()
