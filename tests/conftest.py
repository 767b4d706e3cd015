# SPDX-License-Identifier: Apache-2.0
"""Fixtures for everything that runs a real engine."""

from __future__ import annotations

import os

# Engines of the tests live in the test process; servers are processes of their own anyway.
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Mixtral in float32 whose outputs depend on all of their context."""
    from benchmarks.models import make

    return make("tiny-mixtral", tmp_path_factory.mktemp("models") / "tiny-mixtral")


@pytest.fixture(scope="session")
def strict_engine(tiny_model: Path) -> Iterator[object]:
    """One in-process engine whose steps stop wherever a test wants; shared by many tests."""
    from tests.engine.scripted import ScriptedEngine

    engine = ScriptedEngine(tiny_model)
    yield engine
    engine.close()
