# SPDX-License-Identifier: Apache-2.0
"""Valid configurations round-trip and mean what they say; junk is refused in one way."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vllm_qllm.cli import config_of
from vllm_qllm.config import INT64_MAX, INT64_MIN, ConfigError, PriorityConfig

# On a busy machine, making an example may take long.
PATIENT = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])

int64 = st.integers(INT64_MIN, INT64_MAX)
names = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)


@st.composite
def class_lists(draw: st.DrawFn) -> list[dict[str, Any]]:
    bounds = sorted(draw(st.sets(st.integers(INT64_MIN, INT64_MAX - 1), max_size=7)))
    count = len(bounds) + 1
    labels = draw(st.lists(names, min_size=count, max_size=count, unique=True))
    times = st.fixed_dictionaries(
        {},
        optional={
            "max_wait_ms": st.floats(0.01, 3_600_000) | st.integers(1, 3_600_000),
            "slice_ms": st.floats(0.01, 60_000) | st.integers(1, 60_000),
            "slo_ttft_ms": st.none() | st.sampled_from([0.5, 175, 300, 3_600_000]),
            "slo_share": st.floats(0.001, 0.999),
            "max_prompt_chars": st.none() | st.integers(1, 2**40),
            "max_sequences": st.none() | st.integers(1, 2**40),
            "max_n": st.none() | st.integers(1, 2**40),
            "grammar_bytes": st.none() | st.integers(1, INT64_MAX),
            "grammar_wait_ms": st.none() | st.floats(0.01, 3_600_000),
            "grammar_ms": st.none() | st.floats(0.01, 60_000),
        },
    )
    classes = [
        {"name": label, "max_priority": bound} | draw(times)
        for label, bound in zip(labels, [*bounds, None], strict=True)
    ]
    # All of the machine and more can be promised to nobody.
    for given_times in classes:
        least = 2 * count * given_times.get("slice_ms", 100)
        if given_times.get("max_wait_ms", 2000) < least:
            given_times["max_wait_ms"] = least
    return classes


tiers = st.dictionaries(st.sampled_from(["priority", "scale", "auto", "default", "flex"]), int64)
configs = st.fixed_dictionaries(
    {},
    optional={
        "policy": st.sampled_from(["step", "strict", "my.module:Policy", "_m:_P2"]),
        "classes": class_lists(),
        "yield_points": st.sampled_from(["expert", "layer", "none"]),
        "run_ahead": st.integers(1, 1000),
        "reserved_kv": st.floats(0, 0.5),
        "ride_slowdown": st.floats(1, 100) | st.integers(1, 100),
        "max_preemptions": st.integers(0, 1000),
        "progress_cap": st.floats(0.001, 1),
        "stall_limit_ms": st.floats(0, 86_400_000) | st.integers(0, 86_400_000),
        "service_tiers": tiers,
        "timeline": st.just(0) | st.integers(1024, 2**20),
        "max_body_bytes": st.integers(1024, 2**40),
        "max_body_items": st.none() | st.integers(1, 2**40),
    },
)


@settings(PATIENT)
@given(configs)
def test_round_trip(data: dict[str, Any]) -> None:
    config = PriorityConfig.from_dict(data)
    # Through JSON: it travels to other processes in vLLM's own configuration.
    assert PriorityConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    for field, value in data.items():
        if field not in ("classes", "service_tiers"):
            assert getattr(config, field) == value
    assert data.get("service_tiers", {}).items() <= config.service_tiers.items()


@given(class_lists(), int64)
def test_level_is_the_first_class_whose_bound_is_not_exceeded(
    classes: list[dict[str, Any]], priority: int
) -> None:
    config = PriorityConfig.from_dict({"classes": classes})
    near = [b for c in classes if (b := c["max_priority"]) is not None]
    for p in (priority, INT64_MIN, INT64_MAX, *near, *(b + 1 for b in near)):
        level = config.level(p)
        assert all(p > bound for bound in near[:level])
        assert level == len(near) or p <= near[level]


@given(class_lists())
def test_default_tiers_span_the_classes(classes: list[dict[str, Any]]) -> None:
    config = PriorityConfig.from_dict({"classes": classes})
    of = {tier: config.level(p) for tier, p in config.service_tiers.items()}
    assert of["flex"] == len(classes) - 1
    assert config.service_tiers["auto"] == config.service_tiers["default"] == 0
    least = max(config.service_tiers.values())
    assert config.service_tiers["flex"] == least


@given(class_lists())
def test_paid_tiers_are_the_most_urgent_class(classes: list[dict[str, Any]]) -> None:
    config = PriorityConfig.from_dict({"classes": classes})
    assert config.level(config.service_tiers["priority"]) == 0
    assert config.level(config.service_tiers["scale"]) == 0


def test_defaults_are_the_documented_ones() -> None:
    config = PriorityConfig.load(None, "strict")
    assert [(c.name, c.max_priority) for c in config.classes] == [
        ("latency_sensitive", 0),
        ("best_effort", None),
    ]
    assert [config.level(p) for p in (-5, 0, 1, 100)] == [0, 0, 1, 1]


def test_a_timeline_has_a_size_of_its_own_accord() -> None:
    assert PriorityConfig().timeline == PriorityConfig.from_dict({"timeline": False}).timeline == 0
    assert PriorityConfig.from_dict({"timeline": True}).timeline == 65536


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -(10**400), 2**63])
    | st.floats()
    | st.text(max_size=8)
)
junk = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["name", "max_priority", "slice_ms", "flex"]) | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
FIELDS = list(PriorityConfig.__dataclass_fields__)


def is_config_or_error(data: Any, field: str = "") -> None:
    """A configuration that round-trips, or an error that names the field."""
    try:
        config = PriorityConfig.from_dict(data)
    except ConfigError as error:
        assert str(error) and field in str(error)
    else:
        assert PriorityConfig.from_dict(config.to_dict()) == config


@settings(PATIENT, max_examples=500)
@given(st.dictionaries(st.sampled_from(FIELDS), junk, max_size=4))
def test_junk_in_known_fields(data: dict[str, Any]) -> None:
    is_config_or_error(data)


@settings(PATIENT)
@given(junk | st.dictionaries(st.integers() | st.none() | st.tuples(), junk, max_size=2))
def test_junk_instead_of_a_configuration(data: Any) -> None:
    is_config_or_error(data)


@settings(PATIENT)
@given(configs, st.sampled_from(FIELDS), junk)
def test_one_field_gone_wrong(data: dict[str, Any], field: str, value: Any) -> None:
    is_config_or_error(data | {field: value}, field)


@settings(PATIENT)
@given(
    class_lists(),
    st.sampled_from(["name", "max_priority", "max_wait_ms", "slice_ms", "else"]),
    junk,
)
def test_one_field_of_a_class_gone_wrong(
    classes: list[dict[str, Any]], field: str, value: Any
) -> None:
    classes[0] = classes[0] | {field: value}
    is_config_or_error({"classes": classes}, field if field != "else" else "classes")


@settings(PATIENT)
@given(configs | st.dictionaries(st.sampled_from(FIELDS), junk, max_size=3))
def test_options_as_text_say_the_same(data: dict[str, Any]) -> None:
    def said(load: Callable[[], PriorityConfig | None]) -> PriorityConfig | str | None:
        try:
            return load()
        except ConfigError as error:
            return str(error)

    text = json.dumps(data)
    expected = said(lambda: PriorityConfig.load(text, None))
    own = argparse.Namespace(priority_config=text, additional_config={})
    carried = argparse.Namespace(additional_config={"priority_config": text})
    assert said(lambda: config_of(own)) == said(lambda: config_of(carried)) == expected


@given(st.text(max_size=30))
def test_text_that_is_no_configuration(text: str) -> None:
    try:
        PriorityConfig.load(text, "strict")
    except ConfigError as error:
        assert str(error)


def test_tiers_of_ones_own_have_a_priority_or_a_class() -> None:
    data = {
        "classes": [
            {"name": "chat", "max_priority": 0},
            {"name": "agent", "max_priority": 9},
            {"name": "batch"},
        ],
        "service_tiers": {"bulk": "batch", "gold": -5, "scale": "chat", "fast": "agent"},
    }
    config = PriorityConfig.from_dict(data)
    known = {"bulk": 10, "gold": -5, "scale": 0, "fast": 1, "ultrafast": -2, "standard_only": 0}
    assert {tier: config.tier_priority(tier) for tier in known} == known
    assert config.tier_priority("cheap") is None and config.tier_priority(["flex"]) is None
    data["service_tiers"] = {"*": "batch"}
    config = PriorityConfig.from_dict(data)
    assert config.tier_priority("cheap") == 10 and config.tier_priority("fast") == -2
    assert PriorityConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
