# SPDX-License-Identifier: Apache-2.0
"""What cannot be used is refused before anything is started: field, value, what is allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from vllm_qllm.config import ConfigError
from vllm_qllm.ray.settings import Settings

FILE = Path(__file__).parents[2] / "deploy/ray/fleet.yaml"
GOOD = {"model": "/m", "policy": "strict"}
BAD: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"model": ""}, ("model", "''", "at least 1 character")),
    ({"modell": "/m"}, ("'modell'", "allowed: model, policy")),
    ({"policy": "fifo"}, ("policy", "'fifo'", "step, strict")),
    ({"policy": None}, ("policy", "None", "step, strict")),
    ({"priority_config": {"classess": []}}, ("'classess'", "allowed: ")),
    ({"arguments": ["--port=80"]}, ("arguments", "--port", "listen")),
    ({"arguments": ["--priority_policy", "step"]}, ("arguments", "--priority-policy", "policy")),
    (
        {"arguments": ["--additional-config", '{"priority_policy": "step"}']},
        ("arguments", "no priority_policy", "policy"),
    ),
    (
        {"arguments": ["--additional-config.priority-config=/x"]},
        ("arguments", "no priority_config", "priority_config"),
    ),
    ({"arguments": "--port=80"}, ("arguments", "'--port=80'", "tuple")),
    ({"environment": {"A": 1}}, ("environment.A", "is 1", "string")),
    ({"listen": "8000"}, ("listen", "'8000'", "host:port")),
    ({"drain_seconds": -1}, ("drain_seconds", "-1", "greater than or equal to 0")),
    ({"drain_seconds": "9"}, ("drain_seconds", "'9'", "integer")),
    ({"assign_seconds": 0.0}, ("assign_seconds", "0.0", "greater than 0")),
    ({"max_body_bytes": 1}, ("max_body_bytes", "1", "1024")),
    ({"trusted_hops": ["10.0.0.1/8"]}, ("trusted_hops", "10.0.0.1/8", "10.1.2.0/24")),
]


@pytest.mark.parametrize(("fields", "said"), BAD, ids=lambda value: str(value)[:40])
def test_bad_values_are_named(fields: dict[str, Any], said: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as refused:
        Settings.parse(GOOD | fields)
    assert all(word in str(refused.value) for word in said), refused.value


def test_a_model_is_needed() -> None:
    with pytest.raises(ConfigError, match="model is missing"):
        Settings.parse({"policy": "strict"})


def test_tenants_are_looked_at_where_they_are(tmp_path: Path) -> None:
    tenants = tmp_path / "tenants.json"
    fields = GOOD | {"priority_config": {"tenants": str(tenants)}}
    assert Settings.parse(fields).priorities.tenants == str(tenants)
    tenants.write_text('{"tenants": {"a": {"classes": {"gold": {}}}}}')
    with pytest.raises(ConfigError, match="gold"):
        Settings.parse(fields)


def test_the_file_that_operators_edit_is_good() -> None:
    (application,) = yaml.safe_load(FILE.read_text())["applications"]
    settings = Settings.parse(application["args"])
    assert settings.priorities.policy == "strict"


@pytest.mark.parametrize(
    ("hops", "address", "trusted"),
    [
        ((), "10.1.2.3", False),
        (("10.1.2.0/24",), "10.1.2.3", True),
        (("10.1.2.0/24",), "10.1.3.3", False),
        (("10.1.2.0/24",), "", False),
        (("fd00::/8",), "fd00::1", True),
    ],
)
def test_who_may_name_a_class_by_header(hops: Any, address: str, trusted: bool) -> None:
    assert Settings.parse(GOOD | {"trusted_hops": hops}).is_trusted(address) is trusted
