# SPDX-License-Identifier: Apache-2.0
"""Percentiles of histograms are those that Prometheus would estimate."""

from __future__ import annotations

import subprocess
from itertools import accumulate
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.deploy.tools import program
from vllm_qllm.metrics.names import SECONDS
from vllm_qllm.status.histogram import histogram_quantile, within

BOUNDS = (0.1, 0.5, 1.0, 5.0)
COUNTS = [
    [10, 0, 0, 0, 0],
    [1, 2, 3, 4, 5],
    [0, 0, 7, 0, 0],
    [0, 0, 0, 0, 3],
    [100, 0, 0, 1, 0],
    [3, 0, 0, 0, 1],
]


def test_prometheus_says_the_same(tmp_path: Path) -> None:
    """Asks the real one, by a test of rules."""
    series, asked = [], []
    for case, counts in enumerate(COUNTS):
        for bound, below in zip([*BOUNDS, "+Inf"], accumulate(counts), strict=True):
            name = f'h_bucket{{case="{case}", le="{bound}"}}'
            series.append({"series": name, "values": f"{below}x2"})
        for percent in (1, 50, 90, 99, 100):
            value = histogram_quantile(BOUNDS, counts, percent)
            # 1 is true. Its own comparison allows no rounding.
            sample = {"labels": f'{{case="{case}"}}', "value": 1}
            theirs = f'histogram_quantile({percent / 100}, h_bucket{{case="{case}"}})'
            query = f"abs({theirs} - {value!r}) < bool 1e-9"
            asked.append({"expr": query, "eval_time": "1m", "exp_samples": [sample]})
    tests = [{"interval": "1m", "input_series": series, "promql_expr_test": asked}]
    file = tmp_path / "tests.yml"
    file.write_text(yaml.safe_dump({"rule_files": [], "tests": tests}))
    command = [program("promtool"), "test", "rules", str(file)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout


def test_of_nothing_there_is_none() -> None:
    assert histogram_quantile(BOUNDS, [0, 0, 0, 0, 0], 50) is None


@given(
    st.lists(st.integers(0, 1000), min_size=len(SECONDS) + 1, max_size=len(SECONDS) + 1),
    st.lists(st.floats(0.01, 100), min_size=2, max_size=2).map(sorted),
)
def test_it_rises_with_the_percentage_and_stays_in_a_bucket_that_has_values(
    counts: list[int], percents: list[float]
) -> None:
    found = [histogram_quantile(SECONDS, counts, percent) for percent in percents]
    if not sum(counts):
        assert found == [None, None]
        return
    low, high = found
    assert low is not None and high is not None and low <= high
    for value in (low, high):
        lower = (0.0, *SECONDS)
        inside = [
            a <= value <= b and count for a, b, count in zip(lower, SECONDS, counts, strict=False)
        ]
        assert any(inside) or value == pytest.approx(SECONDS[-1])


@given(
    st.lists(st.integers(0, 1000), min_size=len(SECONDS) + 1, max_size=len(SECONDS) + 1),
    st.floats(0.01, 99.99),
)
def test_so_many_are_within_a_percentile(counts: list[int], percent: float) -> None:
    value = histogram_quantile(SECONDS, counts, percent)
    if value is not None and value < SECONDS[-1]:
        assert within(SECONDS, counts, value) == pytest.approx(sum(counts) * percent / 100)


def test_what_is_within_a_bound_is_exact() -> None:
    assert [within(BOUNDS, [1, 2, 3, 4, 5], bound) for bound in BOUNDS] == [1, 3, 6, 10]
    assert within(BOUNDS, [1, 2, 3, 4, 5], 0.3) == pytest.approx(2)
    assert within(BOUNDS, [1, 2, 3, 4, 5], 100) == 10
