# SPDX-License-Identifier: Apache-2.0
"""What a field may hold: a test, and the same in words for whoever fails it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

T = TypeVar("T")


class ConfigError(ValueError):
    """A configuration that cannot be used; the message says which field, value and why."""


@dataclass(frozen=True)
class Rule:
    """The values that a field allows."""

    holds: Callable[[Any], bool]
    allowed: str


def ruled(default: T, holds: Callable[[Any], bool], allowed: str) -> T:
    """A dataclass field with a default, for :func:`check_rules`."""
    return field(default=default, metadata={"rule": Rule(holds, allowed)})


def check_rules(record: Any, where: str = "") -> None:
    """Check every ruled field of a dataclass, in order.

    Args:
        where: what to put before the name of a field.

    Raises:
        ConfigError: a value breaks the rule of its field.
    """
    for known in fields(record):
        rule = known.metadata.get("rule")
        if isinstance(rule, Rule):
            value = getattr(record, known.name)
            check(rule.holds(value), f"{where}{known.name}", value, rule.allowed)


def check(condition: bool, name: str, value: Any, allowed: str) -> None:
    """Raise ConfigError about field ``name`` unless ``condition``."""
    if not condition:
        raise ConfigError(f"priority config: {name} is {show(value)}; allowed: {allowed}")


def show(value: Any) -> str:
    """``repr(value)`` that is short and cannot fail, whatever JSON held."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, a very deep list
        return f"a {type(value).__name__} too large to show"
    return text if len(text) <= 200 else f"{text[:197]}..."


def is_int(value: Any) -> bool:
    """Whether it is an integer, true and false left out."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether it is a number, true, false and NaN left out."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value


def is_path(value: Any) -> bool:
    """Whether it can be a path."""
    return isinstance(value, str) and value != "" and "\0" not in value
