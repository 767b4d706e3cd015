# SPDX-License-Identifier: Apache-2.0
"""A front finds the class that a server would; what a server refuses, it only has to survive."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from starlette.datastructures import Headers
from vllm.entrypoints.generate.base import serving

from tests.access.access_controls import CLASSES, config_with
from vllm_qllm.config import PriorityConfig
from vllm_qllm.ray.urgency import PRIORITY_HEADER, Urgency

# Body, header, level with the two classes that there are by default.
ASKED: list[tuple[Any, str | None, int]] = [
    ({}, None, 0),
    ({"priority": 0}, None, 0),
    ({"priority": 1}, None, 1),
    ({"priority": 1}, "0", 0),
    ({}, "7", 1),
    ({"service_tier": "flex"}, None, 1),
    ({"service_tier": "default"}, None, 0),
    ({"service_tier": "flex", "priority": -1}, None, 0),
    # What a server answers with 400.
    ({"service_tier": "gold"}, None, 0),
    ({"extra_body": {"priority": 5}}, None, 1),
    ({"extra_body": {"service_tier": "flex"}}, None, 1),
    ({"extra_body": {"priority": 5}, "priority": 0}, None, 0),
    ({"priority": None, "service_tier": "flex"}, None, 1),
    ({"service_tier": ["flex"]}, None, 0),
    ({"priority": "high"}, None, 0),
    ({"priority": 1.5}, None, 0),
    ({"priority": 10**40}, None, 1),
    ({}, "9" * 5000, 0),
    ({}, "1_0x", 0),
    ([1], None, 0),
    ("flex", None, 0),
]


@pytest.mark.parametrize(("fields", "header", "level"), ASKED)
def test_what_a_request_asks_for(fields: Any, header: str | None, level: int) -> None:
    headers = Headers({} if header is None else {PRIORITY_HEADER: header})
    assert Urgency(PriorityConfig()).level(headers, json.dumps(fields).encode()) == level


@pytest.mark.parametrize("body", [b"", b"nope", b"\xff", b"[" * 100_000, b'{"priority": 1'])
def test_what_is_no_json(body: bytes) -> None:
    assert Urgency(PriorityConfig()).level(Headers(), body) == 0


def test_the_header_is_that_of_vllm() -> None:
    assert PRIORITY_HEADER == serving.PRIORITY_HEADER


def test_a_key_decides_what_is_granted(tmp_path: Path) -> None:
    names = [cls.name for cls in CLASSES]
    tenants = {
        "all": {"classes": {name: {} for name in names}},
        "batch": {"classes": {names[2]: {}}, "above": "lower"},
        "strict-batch": {"classes": {names[2]: {}}},
    }
    urgency = Urgency(config_with(tmp_path, tenants))

    def level(key: str, **fields: Any) -> int:
        headers = Headers({"Authorization": f"Bearer {key}"})
        return urgency.level(headers, json.dumps(fields).encode())

    assert [level("all"), level("all", priority=-5), level("all", priority=99)] == [1, 0, 2]
    assert [level("batch"), level("batch", priority=-5)] == [2, 2], "lowered, or its only class"
    assert level("batch", service_tier="auto") == 2
    assert level("strict-batch", priority=0) == 1, "a server refuses it"
    assert level("unknown", priority=99) == 2
