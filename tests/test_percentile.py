# SPDX-License-Identifier: Apache-2.0
"""There is one percentile, and it is numpy's."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vllm_qllm
from vllm_qllm.percentile import percentile

ROOT = Path(vllm_qllm.__file__).parents[1]
# What works on counts in buckets, not on values, and says so in its name.
OF_HISTOGRAMS = {"histogram_quantile", "quantile_bounds"}

times = st.floats(0, 1e6)


@given(st.lists(times, min_size=1), st.floats(0, 100))
def test_it_is_that_of_numpy(values: list[float], percent: float) -> None:
    assert percentile(values, percent) == pytest.approx(np.percentile(values, percent))


@given(st.lists(times, min_size=1), st.integers(1, 20), st.integers(0, 1000).map(lambda p: p / 10))
def test_what_never_came_moves_no_percentile_that_falls_below_it(
    values: list[float], never: int, percent: float
) -> None:
    late = np.percentile([*values, *[1e300] * never], percent)
    found = percentile([*values, *[math.inf] * never], percent)
    assert found is not None
    # Nearer to 1e300 than any real value, however small the part of it.
    assert found == math.inf if late > 1e200 else found == pytest.approx(late)


def test_of_nothing_there_is_none() -> None:
    assert percentile([], 50) is None


def _names() -> Iterator[tuple[str, str]]:
    """(file, name) of all functions that are defined or called."""
    for folder in ("vllm_qllm", "benchmarks"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                name = ""
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    name = node.name
                elif isinstance(node, ast.Attribute):
                    name = node.attr
                if name:
                    yield str(file.relative_to(ROOT)), name


def test_nothing_else_computes_one() -> None:
    found = {
        (file, name)
        for file, name in _names()
        if ("percentile" in name or "quantile" in name)
        and name not in OF_HISTOGRAMS
        and file != "vllm_qllm/percentile.py"
    }
    assert not found, "vllm_qllm.percentile is for this"
    assert ("vllm_qllm/percentile.py", "percentile") in set(_names())
