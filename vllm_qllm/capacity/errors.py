# SPDX-License-Identifier: Apache-2.0
"""Input that cannot be used: the message names the field, the value and what is allowed."""

from __future__ import annotations

from typing import Any


class CapacityError(ValueError):
    """A file, an option or a field that the capacity model cannot use."""


def check(condition: bool, name: str, value: Any, allowed: str) -> None:
    """Raise :class:`CapacityError` unless ``condition``."""
    if not condition:
        shown = repr(value)
        shown = shown if len(shown) <= 200 else f"{shown[:197]}..."
        raise CapacityError(f"capacity: {name} is {shown}; allowed: {allowed}")
