# SPDX-License-Identifier: Apache-2.0
"""One server with the policy strict, and one browser, for all tests that only use them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serve.browser import Tab, browse
from tests.serve.server import MODEL, STRICT, Server, serve

# A second name of the model, and that of many a server is what somebody has typed.
HOSTILE = "<img src=x onerror=alert(1)>"
CLASSES = (
    '{"name": "latency_sensitive", "max_priority": 0, "slo_ttft_ms": 500}, '
    '{"name": "best_effort", "slo_ttft_ms": 40000, "slo_share": 0.95}'
)


@pytest.fixture(scope="session")
def server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that tests share: they may not stop it."""
    options = ("--priority-config", f'{{"timeline": true, "classes": [{CLASSES}]}}')
    names = ("--served-model-name", MODEL, HOSTILE)
    log = tmp_path_factory.mktemp("server") / "log"
    with serve(tiny_model, log, *STRICT, *options, *names) as running:
        yield running
        running.process.terminate()
        assert running.has_ended(within_seconds=30), f"left over: {running.processes()}"


@pytest.fixture(scope="session")
def tab() -> Iterator[Tab]:
    """The page of a browser that tests share, wherever the last one left it."""
    with browse() as tab:
        yield tab
