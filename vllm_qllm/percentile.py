# SPDX-License-Identifier: Apache-2.0
"""The percentile of single values, for all that this package and its benchmarks print."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The ``percent``-th percentile of ``values``, as ``numpy.percentile`` has it by default.

    That is linear between the two values next to it. One that falls above the last finite value is
    infinite: infinity stands for what never came.

    Args:
        values: in any order; None of them NaN.
        percent: from 0 to 100.

    Returns:
        The percentile, in the unit of the values; None where there are none.
    """
    if not len(values):
        return None
    array = np.asarray(values, dtype=np.float64)
    above = float(np.percentile(array, percent, method="higher"))
    if math.isinf(above):
        return above
    # What is beyond does not count, but infinity times nothing would not be a number.
    return float(np.percentile(np.minimum(array, above), percent))
