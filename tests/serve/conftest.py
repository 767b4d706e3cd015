# SPDX-License-Identifier: Apache-2.0
"""One server with the policy strict for all tests that only talk to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serve.server import STRICT, Server, serve


@pytest.fixture(scope="session")
def server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that tests share: they may not stop it."""
    timeline = ("--priority-config", '{"timeline": true}')
    with serve(
        tiny_model, tmp_path_factory.mktemp("server") / "log", *STRICT, *timeline
    ) as running:
        yield running
        running.process.terminate()
        assert running.has_ended(within_seconds=30), f"left over: {running.processes()}"
