# SPDX-License-Identifier: Apache-2.0
"""Comparing two answers token by token."""

from __future__ import annotations

from benchmarks.measurement.equality import first_difference, total
from benchmarks.record.record import Equality


def test_the_first_difference_is_a_token_or_an_end() -> None:
    assert first_difference([1, 2, 3], [1, 2, 3]) is None
    assert first_difference([1, 2, 3], [1, 9, 3]) == 1
    assert first_difference([1, 2, 3], [1, 2]) == 2
    assert first_difference([], [1]) == 0
    assert first_difference([], []) is None


def test_samples_of_several_runs_add_up() -> None:
    runs = [{"LS": Equality([1, 2], 1, [5])}, {"LS": Equality([3], 1), "BE": Equality(cause="x")}]
    assert total(runs) == {"LS": (2, 3), "BE": (0, 0)}
