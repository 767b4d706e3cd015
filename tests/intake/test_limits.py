# SPDX-License-Identifier: Apache-2.0
"""Limits: where they come from, and that they hold exactly."""

from __future__ import annotations

import pytest

from vllm_qllm.access.route import path_of
from vllm_qllm.access.route_kind import KINDS
from vllm_qllm.config import PriorityConfig
from vllm_qllm.intake.limits import LEAST_CHARS, LEAST_ITEMS, SEQUENCES, SLOW_PATHS, Limits, N


def test_the_most_urgent_class_has_none_and_the_others_protect_it() -> None:
    limits = Limits.of(PriorityConfig(), 4096)
    assert limits.prompt_chars == (None, LEAST_CHARS)
    assert limits.sequences == (None, SEQUENCES)
    assert limits.n == (None, N)
    assert limits.body_items == LEAST_ITEMS


def test_long_models_allow_more() -> None:
    limits = Limits.of(PriorityConfig(), 2**20)
    assert limits.prompt_chars == (None, 2**24)
    assert limits.body_items == 2**17


def test_what_is_configured_holds_for_every_class() -> None:
    classes = [
        {"name": "a", "max_priority": 0, "max_sequences": 3},
        {"name": "b", "max_priority": 5, "max_prompt_chars": 7},
        {"name": "c"},
    ]
    config = PriorityConfig.from_dict({"classes": classes, "max_body_items": 11})
    limits = Limits.of(config, 4096)
    assert limits.prompt_chars == (None, 7, LEAST_CHARS)
    assert limits.sequences == (3, SEQUENCES, SEQUENCES)
    assert limits.body_items == 11


@pytest.mark.parametrize("level", [0, 1])
def test_the_limit_is_allowed_and_one_more_is_not(level: int) -> None:
    classes = [
        {"name": "a", "max_priority": 0, "max_sequences": 3, "max_n": 2, "max_prompt_chars": 9},
        {"name": "b", "max_sequences": 3, "max_n": 2, "max_prompt_chars": 9},
    ]
    limits = Limits.of(PriorityConfig.from_dict({"classes": classes}), 4096)
    assert limits.sequences_problem(level, 3, 2) is None
    assert limits.chars_problem(level, 9, "characters of a prompt") is None
    for problem, words in (
        (limits.sequences_problem(level, 4, 2), ("n", "4", "3", "ab"[level], "max_sequences")),
        (limits.sequences_problem(level, 3, 3), ("n", "3", "2", "ab"[level], "max_n")),
        (
            limits.chars_problem(level, 10, "ids"),
            ("ids", "10", "9", "ab"[level], "max_prompt_chars"),
        ),
    ):
        assert problem is not None and all(word in problem for word in words)


def test_what_is_validated_slowly_may_hold_less_and_never_nothing() -> None:
    limits = Limits.of(PriorityConfig(), 4096)
    assert limits.items_at("/v1/completions") == LEAST_ITEMS
    for path, times in SLOW_PATHS.items():
        assert limits.items_at(path) == LEAST_ITEMS // times
    assert SLOW_PATHS.keys() <= {path_of(route) for route in KINDS}
    least = Limits.of(PriorityConfig.from_dict({"max_body_items": 1}), 4096)
    assert {least.items_at(path) for path in SLOW_PATHS} == {1}
