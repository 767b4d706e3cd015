# SPDX-License-Identifier: Apache-2.0
"""Every bad value is refused by a message that holds the field, the value and what is allowed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from vllm_qllm.config import INT64_MAX, INT64_MIN, ConfigError, PriorityConfig

NAN, INF = math.nan, math.inf
CLASS_A = {"name": "a", "max_priority": 5}


def classes(**fields: Any) -> dict[str, Any]:
    """One class with these fields, and a last one."""
    return {"classes": [{"name": "a", "max_priority": 0} | fields, {"name": "z"}]}


# field in the message, the configuration, the value in the message, a word on what is allowed
BAD: list[tuple[str, dict[str, Any], Any, str]] = [
    *(
        ("policy", {"policy": v}, v, "strict")
        for v in ("", "fast", "a:", ":B", "a b:C", 3, None, [], True)
    ),
    *(("yield_points", {"yield_points": v}, v, "layer") for v in ("tile", "", None, 1, ["layer"])),
    *(
        ("run_ahead", {"run_ahead": v}, v, "1000")
        for v in ("2", None, True, 1.0, NAN, 0, -1, 1001)
    ),
    *(
        ("reserved_kv", {"reserved_kv": v}, v, "0.5")
        for v in ("0.1", None, True, NAN, INF, -0.01, 0.51, [0.1])
    ),
    *(
        ("ride_slowdown", {"ride_slowdown": v}, v, "100")
        for v in ("2", None, True, NAN, INF, 0.99, 101, {})
    ),
    *(
        ("max_preemptions", {"max_preemptions": v}, v, "1000")
        for v in ("8", None, True, False, 1.0, NAN, -1, 1001)
    ),
    *(
        ("stall_limit_ms", {"stall_limit_ms": v}, v, "86400000")
        for v in ("8", None, True, NAN, INF, -1, 86_400_001)
    ),
    *(
        ("progress_cap", {"progress_cap": v}, v, "at most 1")
        for v in ("1", "no_class", None, True, NAN, 0, -1, 1.01)
    ),
    *(
        ("timeline", {"timeline": v}, v, "1048576")
        for v in ("true", None, 1, 1023, 2**20 + 1, -1024, 4096.0, NAN, INF, [4096])
    ),
    *(
        ("max_body_bytes", {"max_body_bytes": v}, v, "1099511627776")
        for v in ("1", None, True, NAN, INF, 1023, 2**40 + 1, 2048.0)
    ),
    *(
        ("max_body_items", {"max_body_items": v}, v, "1099511627776")
        for v in ("1", True, NAN, INF, 0, -1, 2**40 + 1, 2048.0)
    ),
    *(
        (f"classes[a].{field}", classes(**{field: v}), v, "1099511627776")
        for field in ("max_prompt_chars", "max_sequences", "max_n")
        for v in ("1", True, NAN, INF, 0, -1, 2**40 + 1, 2048.0)
    ),
    *(
        ("classes[].name", classes(name=v), v, "lower-case")
        for v in ("", "A", "1a", "a-b", "ä", "a" * 64, "a\n", 1, None, ["a"])
    ),
    *(
        ("classes[a].max_priority", classes(max_priority=v), v, "integer")
        for v in ("0", True, 0.0, NAN, [], INT64_MIN - 1, INT64_MAX, None)
    ),
    *(
        ("classes[a].max_wait_ms", classes(max_wait_ms=v), v, "3600000")
        for v in ("1", "no_class", None, True, NAN, INF, 0, -1, 3_600_001)
    ),
    *(
        ("classes[a].slice_ms", classes(slice_ms=v), v, "60000")
        for v in ("1", "no_class", None, True, NAN, INF, 0, -1, 60_001)
    ),
    *(
        ("classes[a].slo_ttft_ms", classes(slo_ttft_ms=v), v, "3600000")
        for v in ("500", True, NAN, INF, 0, -1, 3_600_001, [500])
    ),
    *(
        ("classes[a].slo_share", classes(slo_share=v), v, "below 1")
        for v in ("0.9", None, True, NAN, INF, 0, 1, 99)
    ),
    *(
        ("classes[a].grammar_bytes", classes(grammar_bytes=v), v, "at least 1, or null")
        for v in ("1", True, 1.0, NAN, INF, 0, -1, INT64_MAX + 1, [1])
    ),
    *(
        ("classes[a].grammar_wait_ms", classes(grammar_wait_ms=v), v, "3600000, or null")
        for v in ("1", True, NAN, INF, 0, -1, 3_600_001, [1])
    ),
    *(
        ("classes[a].grammar_ms", classes(grammar_ms=v), v, "60000, or null")
        for v in ("1", True, NAN, INF, 0, -1, 60_001, [1])
    ),
    *(("classes", {"classes": v}, v, "list") for v in (None, 3, "a", {"name": "a"}, True)),
    *(("classes[]", {"classes": [v]}, v, "object") for v in (None, 3, "a", ["a"], True)),
    ("classes[]", {"classes": [{"max_priority": 1}]}, {"max_priority": 1}, "name"),
    ("classes", {"classes": []}, 0, "1 to 8"),
    (
        "classes",
        {"classes": [{"name": f"c{i}", "max_priority": i if i < 8 else None} for i in range(9)]},
        9,
        "1 to 8",
    ),
    ("classes[].name", {"classes": [CLASS_A, {"name": "a"}]}, "a", "differ"),
    (
        "classes[b].max_priority",
        {"classes": [CLASS_A, CLASS_A | {"name": "b"}, {"name": "c"}]},
        5,
        "5, the bound of a",
    ),
    ("classes[z].max_priority", {"classes": [{"name": "z", "max_priority": 5}]}, 5, "null"),
    ("classes[b].max_priority", {"classes": [{"name": "b"}, {"name": "z"}]}, None, "integer"),
    (
        "classes[].slice_ms",
        {"classes": [CLASS_A, *({"name": n, "max_wait_ms": 10, "slice_ms": 10, "max_priority": p}
                                for n, p in (("b", 6), ("c", None)))]},
        10,
        "less than 1; these make 1",
    ),
    *(("tenants", {"tenants": v}, v, "path") for v in ("", 3, True, [], {}, "a\0b")),
    ("field", {"polcy": "strict"}, "polcy", "policy"),
    ("classes[] field", classes(max_prio=3), "max_prio", "max_priority"),
    *(
        ("service_tiers", {"service_tiers": {name: 1}}, name, "flex")
        for name in ("", "a b", "**", "-a", "x" * 64, "gold\n", "ä")
    ),
    *(("service_tiers", {"service_tiers": v}, v, "object") for v in (None, [], "flex", 3)),
    *(
        ("service_tiers.flex", {"service_tiers": {"flex": v}}, v, "integer")
        for v in ("1", "no_class", None, True, 1.0, NAN, INT64_MAX + 1, INT64_MIN - 1)
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("field", "data", "value", "allowed"), BAD, ids=[f"{f}={v!r:.20}" for f, _, v, _ in BAD]
)
def test_names_field_value_and_what_is_allowed(
    field: str, data: dict[str, Any], value: Any, allowed: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        PriorityConfig.load({"policy": "strict"} | data, None)
    message = str(caught.value)
    assert f" {field} " in message
    assert repr(value) in message
    assert "allowed" in message and allowed in message.partition("allowed")[2]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("{", "JSON"),
        ('{"policy": "strict",}', "JSON"),
        ('{"policy": strict}', "JSON"),
        ("[]", "[]"),
        ('["policy"]', "policy"),
        ("", ""),
        ("/nowhere/at/all.json", "/nowhere/at/all.json"),
        ("/", "directory"),
        ("\0", "allowed"),
        ('{"max_preemptions": ' + "1" * 5000 + "}", "JSON"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "JSON"),
    ],
    ids=lambda v: v[:24],
)
def test_unreadable_sources(source: str, found: str) -> None:
    with pytest.raises(ConfigError) as caught:
        PriorityConfig.load(source, "strict")
    assert found in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"[1, 2]", b'"strict"', b"3", b"null", b"\xff\xfe", b"", b"{'policy': 1}"]
)
def test_files_that_hold_no_object_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "priority.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"priority\.json"):
        PriorityConfig.load(str(path), "strict")


@pytest.mark.parametrize("field", ["max_preemptions", "classes", "policy", "polcy", "reserved_kv"])
def test_values_that_python_cannot_print(field: str) -> None:
    """An integer of over 4300 digits has no decimal form, a deep enough list no text at all."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for value in (10**5000, deep):
        with pytest.raises(ConfigError, match=field):
            PriorityConfig.from_dict({field: value})


def test_policy_named_twice_differently() -> None:
    with pytest.raises(ConfigError) as caught:
        PriorityConfig.load({"policy": "step"}, "strict")
    assert "'step'" in str(caught.value) and "'strict'" in str(caught.value)
    assert PriorityConfig.load({"policy": "step"}, "step").policy == "step"


@pytest.mark.parametrize("source", [None, {}, "{}", '{"reserved_kv": 0}'])
def test_policy_missing(source: Any) -> None:
    with pytest.raises(ConfigError, match="policy is None; allowed"):
        PriorityConfig.load(source, None)


def test_a_field_given_twice_is_contradictory() -> None:
    """JSON's own rule, that the last one wins, hides a typing error in a long file."""
    with pytest.raises(ConfigError, match="max_preemptions"):
        PriorityConfig.load('{"max_preemptions": 3, "max_preemptions": 4}', "strict")


def test_sources_are_equal(tmp_path: Path) -> None:
    data = {"policy": "step", "classes": [{"name": "a", "max_priority": 3}, {"name": "b"}]}
    path = tmp_path / "priority.json"
    path.write_text(json.dumps(data))
    as_text = PriorityConfig.load("  " + json.dumps(data), None)
    assert as_text == PriorityConfig.load(data, None) == PriorityConfig.load(str(path), "step")
    assert as_text == PriorityConfig.load(path, None)
