# SPDX-License-Identifier: Apache-2.0
"""What concerns the last seconds, and nothing else."""

from __future__ import annotations

import numpy as np

from vllm_qllm.timeline import events
from vllm_qllm.timeline.events import CODES, Kind
from vllm_qllm.timeline.ring import ROW, Rows
from vllm_qllm.timeline.window import since


def records(*rows: tuple[int, Kind, int, int]) -> Rows:
    """From time, kind, level and subject."""
    found = np.zeros(len(rows), ROW)
    for number, (time, kind, level, subject) in enumerate(rows, 1):
        found[number - 1] = (number, time, CODES[kind.name], level, subject, 0, b"")
    return found


def numbers(found: Rows) -> list[int]:
    return [int(number) for number in found["number"]]


def test_a_step_that_was_going_on_is_there_from_its_start() -> None:
    all_of_it = records(
        (1, events.STEP_STARTED, 1, 1),
        (2, events.STEP_FINISHED, 1, 1),
        (3, events.STEP_STARTED, 1, 2),
        (4, events.STEP_SUSPENDED, 1, 2),
        (6, events.STEP_STARTED, 0, 3),
        (7, events.STEP_FINISHED, 0, 3),
        (8, events.STEP_RESUMED, 1, 2),
        (9, events.STEP_FINISHED, 1, 2),
    )
    assert numbers(since(all_of_it, 5)) == [3, 4, 5, 6, 7, 8]
    assert numbers(since(all_of_it, 9)) == [3, 4, 7, 8]
    assert numbers(since(all_of_it, 10)) == []
    assert numbers(since(all_of_it, 0)) == list(range(1, 9))


def test_what_has_not_ended_is_there_however_old() -> None:
    waiting = records((1, events.REQUEST_ARRIVED, 1, 1), (2, events.STEP_STARTED, 0, 1))
    assert numbers(since(waiting, 1000)) == [1, 2]


def test_a_request_and_a_step_with_one_number_are_two() -> None:
    rows = records((1, events.REQUEST_ARRIVED, 1, 1), (2, events.STEP_FINISHED, 0, 1))
    assert numbers(since(rows, 5)) == [1]


def test_each_queue_has_the_state_it_was_in() -> None:
    rows = records(
        (1, events.QUEUE, 0, 0),
        (2, events.QUEUE, 1, 0),
        (3, events.QUEUE, 0, 0),
        (6, events.QUEUE, 1, 0),
    )
    assert numbers(since(rows, 5)) == [2, 3, 4]


def test_what_holds_of_a_class_is_told_by_kind() -> None:
    rows = records(
        (1, events.KV, 0, 0), (2, events.KV, 0, 0), (3, events.QUEUE, 0, 0), (6, events.KV, 0, 0)
    )
    assert numbers(since(rows, 5)) == [2, 3, 4]


def test_an_arrival_noted_late_is_in_its_place() -> None:
    rows = records((7, events.QUEUE, 0, 0), (4, events.REQUEST_ARRIVED, 0, 9))
    assert numbers(since(rows, 5)) == [1, 2]
