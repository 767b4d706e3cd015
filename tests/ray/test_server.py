# SPDX-License-Identifier: Apache-2.0
"""What a replica reads from ``/metrics``, and how it starts its server."""

from __future__ import annotations

from pathlib import Path

from vllm_qllm.config import PriorityConfig
from vllm_qllm.metrics.collector import PriorityCollector
from vllm_qllm.metrics.recorder import Recorder
from vllm_qllm.ray.server import Server, requests_by_class
from vllm_qllm.ray.settings import Settings


def test_requests_are_counted_whatever_they_wait_for(tmp_path: Path) -> None:
    from prometheus_client import CollectorRegistry, generate_latest

    config, prefix = PriorityConfig(), str(tmp_path / "metrics")
    classes = [cls.name for cls in config.classes]
    recorder, registry = Recorder(config, f"{prefix}.0"), CollectorRegistry()
    registry.register(PriorityCollector(classes, prefix))
    recorder.running(0, 1)
    for record, n in ((recorder.running, 2), (recorder.waiting, 4), (recorder.suspended, 8)):
        record(1, n)
    recorder.parked(1, 2, 100)
    recorder.finished(0, "stop", 1.0, None)
    text = generate_latest(registry).decode()
    recorder.close()
    assert requests_by_class(text, classes) == [1, 14]
    assert requests_by_class(text, ["best_effort"]) == [14]
    assert requests_by_class("", classes) == [0, 0]


def test_the_command_line_says_what_was_configured() -> None:
    fields = {"model": "/m", "policy": "step", "drain_seconds": 7, "arguments": ["--seed", "1"]}
    command = " ".join(Server(Settings.parse(fields)).command())
    assert "/socket --shutdown-timeout 7 --priority-policy step --seed 1" in command
    assert "--host" not in command
    fields["listen"] = "0.0.0.0:8000"
    fields["priority_config"] = {"timeline": True}
    command = " ".join(Server(Settings.parse(fields)).command())
    assert "serve /m --host 0.0.0.0 --port 8000 --shutdown" in command and "--uds" not in command
    assert '--priority-config {"timeline": true}' in command
