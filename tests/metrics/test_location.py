# SPDX-License-Identifier: Apache-2.0
"""Who records where, and on whose ``/metrics`` it appears."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest, multiprocess

from vllm_qllm import seams
from vllm_qllm.api import exposition
from vllm_qllm.config import PriorityConfig
from vllm_qllm.metrics import location
from vllm_qllm.metrics.recorder import Recorder

CONFIG = PriorityConfig()


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process that has prepared nothing, whatever ran before."""
    monkeypatch.setenv(location.VARIABLE, "")
    monkeypatch.setattr(location, "_prepared", None)
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    yield


def scrape(of: CollectorRegistry) -> str:
    return generate_latest(of).decode()


def test_the_directory_is_private_and_new() -> None:
    first, second = location.prepare(CONFIG), location.prepare(CONFIG)
    assert first != second
    mode = os.stat(os.path.dirname(first)).st_mode
    assert stat.S_IMODE(mode) == 0o700
    assert location.store_path(3) == f"{second}.3"
    assert location.prepared() == (("latency_sensitive", "best_effort"), second, False)


def test_a_variable_from_elsewhere_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(location.VARIABLE, "/some/other/server/metrics")
    assert location.prepared() is None
    assert "/some/other/server" not in location.prepare(CONFIG)


def test_one_of_several_api_servers_takes_its_parents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(location.VARIABLE, "/of/my/parent/metrics")
    assert location.prepare(CONFIG, inherit=True) == "/of/my/parent/metrics"


def test_the_directory_is_removed_by_the_process_that_made_it(tmp_path: Path) -> None:
    program = (
        "import os, subprocess, sys; from vllm_qllm.config import PriorityConfig as C; "
        "from vllm_qllm.metrics import location; p = location.prepare(C()); "
        "child = 'from vllm_qllm.config import PriorityConfig as C; "
        "from vllm_qllm.metrics import location; print(location.prepare(C(), inherit=True))'; "
        "out = subprocess.run([sys.executable, '-c', child], capture_output=True, text=True); "
        "assert out.stdout.strip() == p, out; "
        "pid = os.fork(); sys.exit() if pid == 0 else os.waitpid(pid, 0); "
        "print(os.path.isdir(os.path.dirname(p)), p)"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", program]
    printed = subprocess.run(
        command, capture_output=True, text=True, check=True, env=environment
    ).stdout
    there, path = printed.split()
    assert there == "True", "a child removed it"
    assert Path(path).parent.parent == tmp_path
    assert not list(tmp_path.iterdir())


def test_no_policy_no_trace() -> None:
    stock = CollectorRegistry()
    assert exposition.with_priority_metrics(stock) is stock
    assert scrape(stock) == ""
    families: list[object] = []
    assert exposition.with_priority_families(families) is families  # type: ignore[arg-type]


def test_the_collector_is_registered_once() -> None:
    prefix = location.prepare(CONFIG)
    ours = CollectorRegistry()
    for _ in range(2):
        exposition.with_priority_metrics(ours)
    Recorder(CONFIG, f"{prefix}.0").running(1, 4)
    assert scrape(ours).count('qllm_requests_running{class="best_effort"} 4.0') == 1


@pytest.fixture
def installed() -> None:
    """The seams of the API server, as the plugin installs them."""
    for seam in seams.HTTP:
        seam.install()


@pytest.mark.usefixtures("installed")
def test_the_router_of_vllm_gets_a_registry_with_our_metrics() -> None:
    from fastapi import FastAPI
    from fastapi.testclient import TestClient
    from prometheus_client import REGISTRY
    from vllm.entrypoints.serve.instrumentator import metrics

    prefix = location.prepare(CONFIG)
    Recorder(CONFIG, f"{prefix}.0").waiting(0, 6)
    before = set(REGISTRY._collector_to_names)
    app = FastAPI()
    try:
        metrics.attach_router(app)
        text = TestClient(app).get("/metrics").text
    finally:
        for collector in set(REGISTRY._collector_to_names) - before:
            REGISTRY.unregister(collector)
        exposition._registered.discard(REGISTRY)
    assert text.count('qllm_requests_waiting{class="latency_sensitive"} 6.0') == 1


@pytest.mark.usefixtures("installed")
def test_a_registry_made_for_one_scrape_has_our_metrics_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from vllm.entrypoints.serve.instrumentator import metrics

    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    prefix = location.prepare(CONFIG)
    Recorder(CONFIG, f"{prefix}.0").waiting(0, 6)
    scraped = CollectorRegistry()
    multiprocess.MultiProcessCollector(scraped)
    for text in (scrape(scraped), scrape(metrics.get_prometheus_registry())):
        assert text.count('qllm_requests_waiting{class="latency_sensitive"} 6.0') == 1
