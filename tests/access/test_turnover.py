# SPDX-License-Identifier: Apache-2.0
"""Tenants come and go for as long as a server runs; what is gone makes room."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.access.access_controls import config_with
from vllm_qllm.access import collector, counter_table
from vllm_qllm.access.access_control import AccessControl
from vllm_qllm.access.collector import AccessCollector
from vllm_qllm.access.counter_table import CounterTable
from vllm_qllm.access.key import hash_of
from vllm_qllm.access.limiter import ACTIVE, ADMITTED, Claim, Limiter
from vllm_qllm.access.refusal import Refusal
from vllm_qllm.access.tenant import Limits
from vllm_qllm.access.tenants_config import MAX_TENANTS, TenantsConfig
from vllm_qllm.status.tenants import tenants_document

CLASSES = ("chat", "agent", "batch")
LIMITS = Limits(max_concurrent=3)


def tenants(generation: int, number: int = MAX_TENANTS) -> dict[str, Any]:
    """That many, whose names no other generation has."""
    fields = {"classes": {"agent": {"max_concurrent": 3}}}
    return {f"t{generation}-{i}": fields for i in range(number)}


def write(path: str, generation: int, number: int = MAX_TENANTS) -> None:
    named = {n: {"keys": [hash_of(n)]} | t for n, t in tenants(generation, number).items()}
    Path(path).write_text(json.dumps({"tenants": named}))


def test_all_tenants_are_replaced_many_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_with(tmp_path, tenants(0))
    access_control = [AccessControl(config, tmp_path / "table") for _ in range(2)]
    limiter = access_control[0].limiter
    held = limiter.admit("t0-0", "agent", 2, LIMITS)
    assert isinstance(held, Claim)
    before = len(Path("/proc/self/maps").read_text().splitlines())
    for generation in range(1, 9):
        write(str(config.tenants), generation)
        for access in access_control:
            access._file._looked = -1e9
            assert f"t{generation}-0" in access.tenants_config.tenants
        for name in (f"t{generation}-0", f"t{generation}-999"):
            claim = access_control[1].limiter.admit(name, "agent", 1, LIMITS)
            assert isinstance(claim, Claim)
            # Both see it, wherever the row is by now.
            assert limiter.numbers(name, "agent")[:2] == (1, 1)
            access_control[0].limiter.release(claim)
            limiter.count_refusal(name, Refusal("rate", "", "agent"))
            limiter.count_refusal("none", Refusal("no_key", ""))
    # What was still answered all the while was counted all the while.
    assert limiter.numbers("t0-0", "agent")[ACTIVE] == 2
    access_control[1].limiter.release(held)
    assert limiter.numbers("t0-0", "agent")[ACTIVE] == 0
    assert limiter.reloads("loaded") == 16 and limiter.reloads("refused") == 0
    assert abs(len(Path("/proc/self/maps").read_text().splitlines()) - before) < 50
    # Nothing of former tenants is told.
    monkeypatch.setattr(collector, "this_access", lambda: access_control[0])
    told = {s.labels.get("tenant") for f in AccessCollector().collect() for s in f.samples}
    assert told <= {None, "none", *tenants(8)}
    rows = tenants_document(access_control[0])["rows"]
    assert {row["tenant"] for row in rows} == {"none", "t8-0", "t8-999"}


def test_a_full_table_refuses_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each place is one of a tenant that is gone and has a request that is not answered yet."""
    monkeypatch.setattr(counter_table, "CAPACITY", 40)
    monkeypatch.setattr("vllm_qllm.access.limiter.CAPACITY", 40)
    limiter = Limiter(CounterTable(), CLASSES)

    def tenants_config(generation: int, number: int) -> TenantsConfig:
        return TenantsConfig.model_validate({"tenants": tenants(generation, number)})

    claims = []
    limiter.reserve(tenants_config(0, 5))
    for i in range(5):
        claims += [limiter.admit(f"t0-{i}", cls, 1, LIMITS) for cls in CLASSES]
    assert all(isinstance(claim, Claim) for claim in claims)
    with pytest.raises(counter_table.TableFull, match="gone"):
        limiter.reserve(tenants_config(1, 5))
    # 15 rows are busy, and what was given up is there again when it is needed.
    more = [limiter.admit(f"x{i}", "batch", 1, LIMITS) for i in range(60)]
    refused = [each for each in more if isinstance(each, Refusal)]
    assert refused and {(r.status, r.reason) for r in refused} == {(503, "overload")}
    limiter.count_refusal("y", Refusal("rate", "", "batch"))
    limiter.count_reload("refused")
    for claim in (*claims, *more):
        if isinstance(claim, Claim):
            limiter.release(claim)
    limiter.reserve(tenants_config(1, 5))
    admitted = limiter.admit("t1-4", "chat", 1, LIMITS)
    assert isinstance(admitted, Claim)
    assert limiter.numbers("t1-4", "chat")[ADMITTED] == 1
