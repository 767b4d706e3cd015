# SPDX-License-Identifier: Apache-2.0
"""What of tenants is on ``/metrics``: what they have done, not all that they might do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.access.access_controls import config_with, tenant_request
from vllm_qllm.access import access_control
from vllm_qllm.access.access_control import AccessControl
from vllm_qllm.access.collector import AccessCollector
from vllm_qllm.access.refusal import Refusal

CLASSES = {"classes": {"chat": {}, "batch": {}}}


def series() -> dict[tuple[str, ...], float]:
    """Name and tenant of each sample that has one, to its value."""
    samples = [sample for family in AccessCollector().collect() for sample in family.samples]
    return {(s.name, s.labels["tenant"]): s.value for s in samples if "tenant" in s.labels}


def test_only_what_somebody_asked_for_has_a_series(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = AccessControl(config_with(tmp_path, {f"t{n}": CLASSES for n in range(200)}), None)
    monkeypatch.setattr(access_control, "_access", access)
    assert series() == {}
    asked = tenant_request(access, "t7")
    assert not isinstance(asked.ask(-3, 1), Refusal)
    admitted, in_flight = ("qllm_tenant_requests_total", "t7"), ("qllm_tenant_in_flight", "t7")
    assert series() == {admitted: 1, in_flight: 1}
    asked.close()
    assert series() == {admitted: 1, in_flight: 0}
