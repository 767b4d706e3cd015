# SPDX-License-Identifier: Apache-2.0
"""Classes: named groups of priorities, ordered by urgency."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from vllm_qllm.config.rule import (
    INT64_MAX,
    INT64_MIN,
    check,
    check_rules,
    is_int,
    is_number,
    ruled,
)

MAX_CLASSES = 8
BUDGET = "budget"  # in metrics: what a step was suspended for when it was no class
NAME = (
    "lower-case letters, digits and _, starting with a letter, at most 63 characters; "
    f"not {BUDGET}, which is a word of the metrics"
)


@dataclass(frozen=True)
class PriorityClass:
    """A named group of priorities, ``(previous class's max_priority, max_priority]``.

    Attributes:
        name: label in metrics and messages.
        max_priority: largest priority that still belongs to the class; null for the last class.
        max_wait_ms: how long work of this class may be held back by more urgent work before it
            is given ``slice_ms`` of the machine (the bound on every suspension). Milliseconds.
        slice_ms: how long it then runs, over as many steps as that takes, before it may be
            suspended again. Milliseconds; at least one yield point is always passed. The shares
            ``slice_ms / (max_wait_ms + slice_ms)`` of all classes but the first add up to less
            than 1.
        slo_ttft_ms: objective for the time to first token, shown on the status page; between two
            bounds of the histogram the share is interpolated; null: none. Milliseconds.
        slo_share: share of the requests that are to keep it.
        max_prompt_chars: characters of a text that is tokenized, or ids of one that is decoded;
            null: 16 for each token of the model's longest sequence, at least 262144, and any in the
            most urgent class.
        max_sequences: prompts times ``n`` of a request; null: 1024, and any in the most urgent
            class.
        max_n: sequences of one prompt; null: 256, and any in the most urgent class.
        grammar_bytes: size of the largest grammar, schema or list of choices; null for any. It is
            compiled in a time that may grow with the square of its size. Like the two below it
            does not bind the most urgent class.
        grammar_wait_ms: how long a request may wait for its grammar; null for any time. It then
            ends with an error. Milliseconds.
        grammar_ms: mean time for each token that a grammar may take of the engine's thread, and
            all of a step together; null for any. A request that goes on taking more ends with an
            error. Milliseconds.
    """

    name: str = field(metadata={"allowed": NAME})
    max_priority: int | None = ruled(
        None,
        lambda v: v is None or (is_int(v) and INT64_MIN <= v < INT64_MAX),
        "a 64-bit integer, or null for the last class",
    )
    max_wait_ms: float = ruled(
        2000.0,
        lambda v: is_number(v) and 0 < v <= 3_600_000,
        "a number of milliseconds above 0, at most 3600000",
    )
    slice_ms: float = ruled(
        100.0,
        lambda v: is_number(v) and 0 < v <= 60_000,
        "a number of milliseconds above 0, at most 60000",
    )
    slo_ttft_ms: float | None = ruled(
        None,
        lambda v: v is None or (is_number(v) and 0 < v <= 3_600_000),
        "null, or a number of milliseconds above 0, at most 3600000",
    )
    slo_share: float = ruled(
        0.99, lambda v: is_number(v) and 0 < v < 1, "a fraction above 0 and below 1"
    )
    max_prompt_chars: int | None = ruled(
        None,
        lambda v: v is None or (is_int(v) and 1 <= v <= 2**40),
        "null, or a number of characters from 1 to 1099511627776",
    )
    max_sequences: int | None = ruled(
        None,
        lambda v: v is None or (is_int(v) and 1 <= v <= 2**40),
        "null, or a number from 1 to 1099511627776",
    )
    max_n: int | None = ruled(
        None,
        lambda v: v is None or (is_int(v) and 1 <= v <= 2**40),
        "null, or a number from 1 to 1099511627776",
    )

    grammar_bytes: int | None = ruled(
        2**18,
        lambda v: v is None or (is_int(v) and 1 <= v <= INT64_MAX),
        "a number of bytes, at least 1, or null for any",
    )
    grammar_wait_ms: float | None = ruled(
        60_000.0,
        lambda v: v is None or (is_number(v) and 0 < v <= 3_600_000),
        "a number of milliseconds above 0, at most 3600000, or null for any",
    )
    grammar_ms: float | None = ruled(
        10.0,
        lambda v: v is None or (is_number(v) and 0 < v <= 60_000),
        "a number of milliseconds above 0, at most 60000, or null for any",
    )

    def __post_init__(self) -> None:
        check(
            isinstance(self.name, str)
            and re.fullmatch(r"[a-z][a-z0-9_]{0,62}", self.name) is not None
            and self.name != BUDGET,
            "classes[].name",
            self.name,
            NAME,
        )
        check_rules(self, f"classes[{self.name}].")

    @property
    def share(self) -> float:
        """The fraction of the machine that the class keeps, however much urgent work there is."""
        return self.slice_ms / (self.max_wait_ms + self.slice_ms)


DEFAULT_CLASSES = (
    PriorityClass("latency_sensitive", max_priority=0),
    PriorityClass("best_effort"),
)


def parse_classes(value: Any) -> tuple[PriorityClass, ...]:
    """Classes from a list of mappings, most urgent first. Raises ConfigError."""
    check(
        isinstance(value, (list, tuple)), "classes", value, "a list of classes, most urgent first"
    )
    return tuple(_parse(entry) for entry in value)


def _parse(entry: Any) -> PriorityClass:
    if isinstance(entry, PriorityClass):
        return entry
    check(isinstance(entry, Mapping), "classes[]", entry, "an object with name and max_priority")
    known = {f.name for f in fields(PriorityClass)}
    for name in entry:
        check(name in known, "classes[] field", name, ", ".join(sorted(known)))
    check("name" in entry, "classes[]", dict(entry), "an object with a name")
    return PriorityClass(**entry)


def check_shares(classes: Sequence[PriorityClass]) -> None:
    """Check that what is promised to less urgent classes leaves something. Raises ConfigError."""
    total = sum(c.share for c in classes[1:])
    check(
        total < 1,
        "classes[].slice_ms",
        [c.slice_ms for c in classes[1:]],
        "times whose shares slice_ms / (max_wait_ms + slice_ms) of all classes but the most urgent "
        f"add up to less than 1; these make {total:.3g}",
    )


def check_order(classes: Sequence[PriorityClass]) -> None:
    """Check that every priority belongs to exactly one of ``classes``. Raises ConfigError."""
    check(1 <= len(classes) <= MAX_CLASSES, "classes", len(classes), f"1 to {MAX_CLASSES} classes")
    names = [c.name for c in classes]
    check(len(set(names)) == len(names), "classes[].name", names, "names that differ")
    for earlier, later in itertools.pairwise(classes):
        check(
            earlier.max_priority is not None,
            f"classes[{earlier.name}].max_priority",
            None,
            "an integer: only the last class may leave it out",
        )
        check(
            later.max_priority is None or later.max_priority > earlier.max_priority,  # type: ignore[operator]
            f"classes[{later.name}].max_priority",
            later.max_priority,
            f"above {earlier.max_priority}, the bound of {earlier.name} (most urgent first)",
        )
    check(
        classes[-1].max_priority is None,
        f"classes[{classes[-1].name}].max_priority",
        classes[-1].max_priority,
        "null: the last class takes all remaining priorities",
    )


def level_of(classes: Sequence[PriorityClass], priority: int) -> int:
    """Index of the class that ``priority`` belongs to; 0 is the most urgent."""
    for level, cls in enumerate(classes):
        if cls.max_priority is None or priority <= cls.max_priority:
            return level
    raise AssertionError("the last class has no bound")


def usual_priority(classes: Sequence[PriorityClass], level: int) -> int:
    """The priority of a class's requests that name none.

    That is 0 in its own class; elsewhere the most urgent of the class or, in one that has no
    most urgent one, the least urgent.
    """
    if level_of(classes, 0) == level:
        return 0
    last = classes[level].max_priority if level == 0 else None
    return last if last is not None else classes[level - 1].max_priority + 1  # type: ignore[operator]
