# SPDX-License-Identifier: Apache-2.0
"""Quantiles of a histogram, as Prometheus estimates them, and how many values are below a bound."""

from __future__ import annotations

from collections.abc import Sequence


def histogram_quantile(
    bounds: Sequence[float], counts: Sequence[float], percent: float
) -> float | None:
    """The value that ``percent`` of all values do not exceed; None when there are none.

    Values are taken to be spread evenly over their bucket. Of those above the last bound nothing
    is known: the answer is then the last bound.

    Args:
        bounds: upper bounds of the buckets, ascending.
        counts: values in each bucket (not cumulative), and in the one above the last bound.
        percent: above 0, at most 100.
    """
    rank = sum(counts) * percent / 100
    below, lower = 0.0, 0.0
    for upper, count in zip(bounds, counts, strict=False):
        if count and below + count >= rank:
            return lower + (upper - lower) * (rank - below) / count
        below, lower = below + count, upper
    return bounds[-1] if sum(counts) else None


def within(bounds: Sequence[float], counts: Sequence[float], most: float) -> float:
    """How many values are at most ``most``; exact at a bound, linear between two of them.

    Args:
        bounds, counts: see :func:`histogram_quantile`.
        most: as the bounds. Of values above the last bound nothing is known: they are above it.
    """
    kept, lower = 0.0, 0.0
    for upper, count in zip(bounds, counts, strict=False):
        kept += count * min(1.0, max(0.0, (most - lower) / (upper - lower)))
        lower = upper
    return kept
