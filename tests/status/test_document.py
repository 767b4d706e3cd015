# SPDX-License-Identifier: Apache-2.0
"""Every number that was recorded stands where ``docs/status.md`` says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.access.access_controls import config_with, tenant_request
from tests.api.client import Client
from vllm_qllm.access import access_control
from vllm_qllm.access.access_control import AccessControl
from vllm_qllm.access.refusal import Refusal
from vllm_qllm.api.standstill import Standstill
from vllm_qllm.config import PriorityClass, PriorityConfig
from vllm_qllm.metrics.pulse import PulseReader
from vllm_qllm.metrics.recorder import Recorder
from vllm_qllm.metrics.stores import Stores
from vllm_qllm.status import tenants
from vllm_qllm.status.document import Source, document
from vllm_qllm.status.history import History

CONFIG = PriorityConfig(
    policy="step",
    spill_bytes=4096,
    classes=(
        PriorityClass("chat", max_priority=-3, slo_ttft_ms=500, slo_share=0.9),
        PriorityClass("agent", max_priority=9, max_wait_ms=700, slice_ms=50),
        PriorityClass("batch"),
    ),
)


@pytest.fixture
def source(tmp_path: Path) -> Source:
    stores = Stores([c.name for c in CONFIG.classes], str(tmp_path / "metrics"))
    client = Client()
    standstill = Standstill(client, PulseReader(tmp_path / "metrics.0.pulse"), 3.0)
    return Source(CONFIG, ("tiny", "other"), History(stores), client, standstill)


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    return Recorder(CONFIG, tmp_path / "metrics.0")


def told(source: Source, seconds: float = 0) -> dict[str, Any]:
    """The document as a client gets it."""
    found: dict[str, Any] = json.loads(json.dumps(document(source, seconds), allow_nan=False))
    return found


def test_before_an_engine_records_the_configuration_is_there(source: Source) -> None:
    found = told(source)
    assert (found["format"], found["version"]) == ("vllm-qllm status", 1)
    assert found["models"] == ["tiny", "other"] and found["timeline"] == 0
    assert found["policy"]["name"] == "step" and found["policy"]["spill_bytes"] == 4096
    chat, agent, batch = found["classes"]
    assert (chat["min_priority"], chat["max_priority"]) == (None, -3)
    assert (agent["min_priority"], agent["max_priority"]) == (-2, 9)
    assert (batch["min_priority"], batch["max_priority"]) == (10, None)
    assert (agent["max_wait_ms"], agent["slice_ms"]) == (700, 50)
    assert chat["service_tiers"] == ["priority", "scale"] and batch["service_tiers"] == ["flex"]
    assert chat["queue"] is None and chat["recent"] is None and found["covered"] is None
    assert found["tenants"] is None


def test_numbers_of_a_class(source: Source, recorder: Recorder) -> None:
    recorder.running(1, 4)
    recorder.waiting(1, 5)
    recorder.suspended(1, 6)
    recorder.parked(1, 7, 70)
    recorder.spilled(1, 8192)
    recorder.preemption(1)
    recorder.came_back(1, 11, 12)
    recorder.generated_tokens(1, 33)
    recorder.prompt_tokens(1, 44)
    for n in range(4):
        recorder.finished(1, "stop" if n else "abort", 30.0, 0.012)
        recorder.first_token(1, 0.2)
        recorder.response(1, 0.02)
    recorder.suspended_for(1, 0.5)
    _, agent, _ = told(source)["classes"]
    assert agent["queue"] == {
        "running": 4,
        "waiting": 5,
        "suspended": 6,
        "parked": 7,
        "parked_blocks": 70,
        "spilled_bytes": 8192,
    }
    recent = agent["recent"]
    assert recent["ended"] == {"stop": 3, "length": 0, "abort": 1, "error": 0, "repetition": 0}
    numbers = ("preemptions", "saved_tokens", "recomputed_tokens", "generated_tokens")
    assert [recent[n] for n in (*numbers, "prompt_tokens")] == [1, 11, 12, 33, 44]
    assert recent["generated_tokens_per_second"] > 0
    expected = {
        "time_to_first_token": (4, 0.2, 0.175, 0.25),
        "response": (4, 0.02, 0.015, 0.02),
        "time_per_output_token": (4, 0.012, 0.01, 0.015),
        "end_to_end": (4, 30.0, 20.0, 40.0),
        "suspended": (1, 0.5, 0.35, 0.6),
    }
    for name, (count, mean, above, up_to) in expected.items():
        times = recent[name]
        assert times["count"] == count and times["mean"] == pytest.approx(mean), name
        assert above < times["p50"] <= times["p90"] <= times["p99"] <= up_to, name
    others = [c for c in told(source)["classes"] if c["name"] != "agent"]
    assert all(c["recent"]["time_to_first_token"]["count"] == 0 for c in others)


def test_an_objective_counts_what_was_within_its_time(source: Source, recorder: Recorder) -> None:
    assert told(source)["classes"][0]["objective"]["kept_share"] is None
    for seconds in (0.001, 0.4, 0.5, 0.500001, 3.0, 1000.0):
        recorder.first_token(0, seconds)
    chat, agent, _ = told(source)["classes"]
    assert chat["objective"] == {
        "ttft_ms": 500,
        "share": 0.9,
        "requests": 6,
        "late": 3,
        "kept_share": 0.5,
    }
    assert agent["objective"] is None


def test_who_suspended_whom(source: Source, recorder: Recorder) -> None:
    recorder.suspension(2, 0)
    recorder.suspension(2, 0)
    recorder.nested_step(2, 0)
    recorder.suspension(2, None)
    recorder.suspension(1, 0)
    pairs = {(p["of"], p["by"]): p for p in told(source)["suspensions"]}
    assert set(pairs) == {
        ("chat", "budget"),
        ("agent", "chat"),
        ("agent", "budget"),
        ("batch", "chat"),
        ("batch", "agent"),
        ("batch", "budget"),
    }
    assert pairs["batch", "chat"]["suspensions"] == 2
    assert pairs["batch", "chat"]["nested_steps"] == 1
    assert pairs["batch", "budget"] == {
        "of": "batch",
        "by": "budget",
        "suspensions": 1,
        "nested_steps": None,
    }
    assert pairs["agent", "chat"]["suspensions"] == 1
    assert pairs["batch", "agent"]["suspensions"] == 0


def test_states(source: Source) -> None:
    assert told(source)["state"] == "serving"
    source.client.errored = True
    assert told(source)["state"] == "engine dead"


def test_tenants_with_most_refusals_first(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed = {"classes": {"agent": {"max_concurrent": 3}}}
    names = [f"t{n}" for n in range(5)]
    config = config_with(tmp_path, dict.fromkeys(names, allowed), max_in_flight={"batch": 9})
    access = AccessControl(config, None)
    monkeypatch.setattr(access_control, "_access", access)
    assert told(source)["tenants"]["rows"] == []
    assert not isinstance(tenant_request(access, "t1").ask(0, 2), Refusal)
    assert isinstance(tenant_request(access, "t3").ask(-9, 1), Refusal)
    assert isinstance(tenant_request(access, "t3").ask(-9, 1), Refusal)
    access.refused(None, Refusal("unknown_key", "no"), "/v1/models", "id")
    found = told(source)["tenants"]
    assert found["configured"] == 5 and found["max_in_flight"] == {"batch": 9}
    assert found["left_out"] == 0
    numbers = ("tenant", "class", "requests", "in_flight", "refused")
    assert [tuple(row[n] for n in numbers) for row in found["rows"]] == [
        ("t3", "chat", 0, 0, 2),
        ("none", "none", 0, 0, 1),
        ("t1", "agent", 1, 2, 0),
    ]
    assert found["rows"][0]["reasons"] == {"class": 2}
    monkeypatch.setattr(tenants, "MAX_ROWS", 2)
    found = told(source)["tenants"]
    assert len(found["rows"]) == 2 and found["left_out"] == 1
