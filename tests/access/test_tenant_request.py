# SPDX-License-Identifier: Apache-2.0
"""What priority a tenant's request gets, with three classes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.access.access_controls import config_with, tenant_request
from vllm_qllm.access.access_control import AccessControl
from vllm_qllm.access.refusal import Refusal
from vllm_qllm.config import INT64_MAX, INT64_MIN

CHAT, AGENT, BATCH = "chat", "agent", "batch"


def tenant(*classes: str, **fields: Any) -> dict[str, Any]:
    return {"classes": {name: {} for name in classes}} | fields


TENANTS = {
    "all": tenant(CHAT, AGENT, BATCH),
    "ends": tenant(CHAT, BATCH),
    "ends-lowered": tenant(CHAT, BATCH, above="lower"),
    "middle": tenant(AGENT),
    "middle-lowered": tenant(AGENT, above="lower"),
    "batch-default": tenant(CHAT, AGENT, BATCH, default_class=BATCH),
    "bounded": {"classes": {AGENT: {"min_priority": 4}, BATCH: {}}},
    "bounded-lowered": {"classes": {AGENT: {"min_priority": 4}}, "above": "lower"},
    "chat": tenant(CHAT),
}


@pytest.fixture(scope="module")
def access(tmp_path_factory: pytest.TempPathFactory) -> AccessControl:
    return AccessControl(config_with(tmp_path_factory.mktemp("access"), TENANTS), None)


# Tenant, priority asked for, priority given or the reason of the refusal.
GIVEN: list[tuple[str, int | None, int | str]] = [
    ("all", None, 0),
    ("all", -9, -9),
    ("all", 50, 50),
    ("ends", None, -3),
    ("ends", -3, -3),
    ("ends", -2, "class"),
    ("ends", 9, "class"),
    ("ends", 10, 10),
    ("ends-lowered", 0, 10),
    ("ends-lowered", -3, -3),
    ("middle", None, 0),
    ("middle", -3, "class"),
    ("middle", 10, "class"),
    ("middle-lowered", -3, 0),
    ("middle-lowered", INT64_MIN, 0),
    ("middle-lowered", 10, "class"),
    ("batch-default", None, 10),
    ("batch-default", 0, 0),
    ("bounded", None, 4),
    ("bounded", 3, "priority"),
    ("bounded", 4, 4),
    ("bounded", 5, 5),
    ("bounded", -5, "class"),
    ("bounded-lowered", 3, 4),
    ("bounded-lowered", -5, 4),
    ("chat", None, -3),
    ("chat", 0, "class"),
]


@pytest.mark.parametrize(("name", "asked", "expected"), GIVEN)
def test_what_is_given(
    access: AccessControl, name: str, asked: int | None, expected: int | str
) -> None:
    got = tenant_request(access, name).ask(asked, 1)
    assert (got.reason if isinstance(got, Refusal) else got) == expected


@given(
    name=st.sampled_from(sorted(TENANTS)),
    asked=st.none() | st.integers(-12, 20) | st.integers(INT64_MIN, INT64_MAX),
)
def test_nothing_more_urgent_than_asked_for_or_allowed(
    access: AccessControl, name: str, asked: int | None
) -> None:
    got = tenant_request(access, name).ask(asked, 1)
    if not isinstance(got, Refusal):
        assert asked is None or got >= asked
        assert access.config.classes[access.config.level(got)].name in TENANTS[name]["classes"]


def test_the_first_answer_stands_and_is_given_back_once(access: AccessControl) -> None:
    first = tenant_request(access, "all")
    active = lambda: access.limiter.numbers("all", AGENT)[0]  # noqa: E731
    before = active()
    assert (first.ask(5, 2), first.ask(-9, 1), first.priority) == (5, 5, 5)
    assert active() == before + 2
    first.close()
    first.close()
    assert active() == before
    with pytest.raises(RuntimeError, match="admitted"):
        _ = tenant_request(access, "all").priority
