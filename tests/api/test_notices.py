# SPDX-License-Identifier: Apache-2.0
"""What clients do not mean is said in the log: once, and never with what a request holds."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from vllm_qllm.api.notices import MOST, Notices, misplaced
from vllm_qllm.config import PriorityConfig


@pytest.fixture
def notices(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Notices:
    """Whose lines ``caplog`` sees: vLLM's logger hands nothing on."""
    monkeypatch.setattr(logging.getLogger("vllm"), "propagate", True)
    caplog.set_level("WARNING", "vllm.qllm")
    return Notices()


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"metadata": {"priority": 10}}, ["metadata.priority"]),
        ({"metadata": {"service_tier": "flex"}}, ["metadata.service_tier"]),
        ({"nvext": {"priority": 1}}, ["nvext.priority"]),
        ({"nvext": {"agent_hints": {"priority": 1}}}, ["nvext.agent_hints.priority"]),
        ({"x_priority": 1}, ["x_priority"]),
        ({"X-Vllm-Priority": 1}, ["X-Vllm-Priority"]),
        ({"Priority": 1, "serviceTier": "flex"}, ["Priority", "serviceTier"]),
        ({"extra_headers": {"X-Vllm-Priority": "1"}}, ["extra_headers.X-Vllm-Priority"]),
        ({"vllm_xargs": {"priority": 1}}, ["vllm_xargs.priority"]),
        ({"extra_body": {"x_priority": 1}}, ["extra_body.x_priority"]),
        ({"a\nb": {"priority": 1}}, ["(other).priority"]),
        # Read, or nothing of the kind.
        ({"priority": 1, "service_tier": "flex", "extra_body": {"priority": 1}}, []),
        ({"messages": [{"priority": 1}], "metadata": {"user": "priority"}}, []),
        ({"guided_json": {"properties": {"priority": {"type": "integer"}}}}, []),
        ({"logit_bias": dict.fromkeys(map(str, range(1000)), 1) | {"priority": 1}}, []),
    ],
)
def test_fields_that_look_as_if(body: Any, fields: list[str]) -> None:
    assert list(misplaced(body)) == fields


def test_each_field_is_told_once(notices: Notices, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        notices.not_read({"metadata": {"priority": "secret"}}, None)
        notices.not_read({"x_priority": "secret"}, "web")
    first, second = caplog.messages
    assert "metadata.priority" in first and "x_priority" in second and "tenant web" in second
    assert "secret" not in caplog.text


def test_clients_cannot_fill_the_log(notices: Notices, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(1000):
        notices.not_read({f"field{number}": {"priority": 1}}, None)
        notices.unknown_tier("x" * 10_000 + str(number), PriorityConfig())
        notices.unknown_tier(number, PriorityConfig())
    assert len(caplog.records) == 2 * MOST
    assert len(caplog.text) < 2 * MOST * 500


def test_who_names_nothing_where_others_do(
    notices: Notices, caplog: pytest.LogCaptureFixture
) -> None:
    notices.asks(None, "chat", None)
    assert not caplog.messages, "nobody does"
    notices.asks(0, "chat", None)
    for _ in range(3):
        notices.asks(None, "chat", None)
    (line,) = caplog.messages
    assert "class chat" in line


def test_once_a_tenant(notices: Notices, caplog: pytest.LogCaptureFixture) -> None:
    notices.asks(5, "batch", "jobs")
    for tenant in ("web", "jobs", "web"):
        notices.asks(None, "chat", tenant)
    assert ["tenant web" in line for line in caplog.messages] == [True, False]
