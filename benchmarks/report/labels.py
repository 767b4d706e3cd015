# SPDX-License-Identifier: Apache-2.0
"""Texts that several tables have in their cells, and the line above them."""

import math
from collections.abc import Sequence

from benchmarks.measurement.conditions import sentence
from benchmarks.record.groups import Group, Results
from benchmarks.record.record import Record
from benchmarks.record.summary import number


def ratio(value: float | None, base: float | None) -> str:
    """The value, and in brackets how often the base fits into it."""
    if value is None or not base or math.isinf(value) or math.isinf(base):
        return number(value)
    return f"{number(value)} ({value / base:.2f})"


def first(group: Group) -> list[str]:
    """How a row begins."""
    point = [] if group.point is None else [f"{group.point.value:g}"]
    return [group.system, *point]


def heading(results: Results, scenario: str) -> list[str]:
    """The first columns' names."""
    point = next((g.point for g in results.groups(scenario) if g.point is not None), None)
    return ["system", *([point.name] if point else [])]


def caption(records: Sequence[Record]) -> str:
    """Under which conditions; one line for each that occurs."""
    lines: dict[tuple[str, str, float, int], None] = {}
    for each in records:
        seconds = each.plan.get("times", {}).get("seconds", each.seconds)
        lines[sentence(each.conditions), each.plan.get("model", ""), seconds, each.seed] = None
    return "\n".join(
        f"{conditions}; model {model}; window {seconds:g} s; seed {seed}."
        for conditions, model, seconds, seed in lines
    )
