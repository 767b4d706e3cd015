# SPDX-License-Identifier: Apache-2.0
"""From measured steps to a cost model: least squares of a few named numbers."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vllm_qllm.capacity.cost import Cost
from vllm_qllm.capacity.errors import check

# Steps of so few tokens are told apart by their exact number, larger ones by size within this.
EXACT = 8
WIDTH = 1.25
# Residuals beyond this many median deviations are not the step's own: something else ran.
OUTLIER = 4.0
# Times every parameter is fitted; each time without the outliers of the last.
ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured step.

    Attributes:
        tokens: that it computed, of prefills and decodes.
        context: tokens that its decodes attended to, summed.
        pairs: query-key pairs of its prefills.
        seconds: how long it took.
    """

    tokens: int
    context: float
    pairs: float
    seconds: float


def pairs(tokens: int, computed: int = 0) -> float:
    """Query-key pairs of a prefill of ``tokens`` after ``computed`` ones."""
    return tokens * computed + tokens * (tokens + 1) / 2


def nodes(samples: Sequence[Sample]) -> list[int]:
    """The step sizes whose cost is fitted: each small one, and one for each group of large ones."""
    sizes = sorted({s.tokens for s in samples})
    groups: list[list[int]] = []
    for size in sizes:
        group = groups[-1] if groups else []
        if group and size > EXACT and group[0] > EXACT and size <= group[0] * WIDTH:
            group.append(size)
        else:
            groups.append([size])
    return [round(statistics.mean(group)) for group in groups]


def fit(
    samples: Sequence[Sample],
    first_tokens: Sequence[Sample] = (),
    about: Mapping[str, Any] | None = None,
    **known: Any,
) -> Cost:
    """Fit a cost model.

    Args:
        samples: measured steps of two sizes or more.
        first_tokens: what clients saw alone on an idle server: ``seconds`` to the first token of a
            request whose prefill is ``tokens`` and ``pairs``; what the step does not explain is
            ``overhead_s``.
        about: where the measurements come from.
        known: other fields of :class:`Cost`, measured elsewhere.

    Raises:
        CapacityError: the samples do not determine a model.
    """
    good = [s for s in samples if s.seconds > 0 and s.tokens >= 1]
    check(
        len({s.tokens for s in good}) >= 2,
        "samples",
        f"{len(good)} steps of {len({s.tokens for s in good})} sizes",
        "measured steps of two sizes or more",
    )
    sizes = nodes(good)
    if len(sizes) < 2:
        sizes = sorted({min(s.tokens for s in good), max(s.tokens for s in good)})
    kept = good
    for _ in range(ROUNDS):
        values = _least_squares(kept, sizes)
        errors = _errors(good, sizes, values)
        middle = float(np.median(errors))
        width = max(float(np.median(np.abs(errors - middle))), 1e-3)
        kept = [
            s
            for s, e in zip(good, errors, strict=True)
            if abs(e - middle) <= OUTLIER * 1.4826 * width
        ]
        if len(kept) < len(good) / 2:
            kept = good
    # Least squares of ratios aim at the middle of them; throughput goes by the mean.
    scale = math.exp(float(np.mean(_errors(kept, sizes, values))))
    steps = list(itertools.accumulate((v * scale for v in values[:-2]), max))
    cost = Cost(
        tuple((n, round(max(float(s), 1e-6), 7)) for n, s in zip(sizes, steps, strict=True)),
        context_s=float(values[-2]) * scale,
        pair_s=float(values[-1]) * scale,
        noise=round(min(float(np.std(_errors(kept, sizes, values))), 1.0), 4),
        about=dict(about or {}) | {"samples": len(good), "outliers": len(good) - len(kept)},
        **known,
    )
    return _with_overhead(cost, first_tokens)


def _row(sample: Sample, sizes: Sequence[int]) -> list[float]:
    """What a sample's seconds are a sum of: two neighbouring sizes, context, pairs."""
    weights = [0.0] * (len(sizes) + 2)
    right = min(max(int(np.searchsorted(sizes, sample.tokens)), 1), len(sizes) - 1)
    low, high = sizes[right - 1], sizes[right]
    share = (sample.tokens - low) / (high - low)
    weights[right - 1], weights[right] = 1 - share, share
    weights[-2], weights[-1] = sample.context, sample.pairs
    return weights


def _least_squares(samples: Sequence[Sample], sizes: Sequence[int]) -> np.ndarray:
    """Least squares of relative errors; context and pairs drop out where they would be negative."""
    seconds = np.array([s.seconds for s in samples])
    matrix = np.array([_row(s, sizes) for s in samples]) / seconds[:, None]
    target = np.ones(len(samples))
    # A slight pull towards "attention costs nothing" decides what the samples leave open.
    columns = [*range(len(sizes)), len(sizes), len(sizes) + 1]
    while True:
        part = matrix[:, columns]
        norms = np.maximum(np.linalg.norm(part, axis=0), 1e-12)
        pull = np.diag([1e-4 if c < len(sizes) else 1e-2 for c in columns])
        stacked = np.vstack([part / norms, pull])
        padded = np.concatenate([target, np.zeros(len(columns))])
        solution = np.linalg.lstsq(stacked, padded, rcond=None)[0] / norms
        negative = [c for c, v in zip(columns, solution, strict=True) if v < 0]
        if not negative:
            values = np.zeros(len(sizes) + 2)
            values[columns] = solution
            return values
        # Attention first: a size that comes out negative by itself is noise.
        attention = [c for c in negative if c >= len(sizes)]
        drop = attention or negative
        columns = [c for c in columns if c not in drop]


def _errors(samples: Sequence[Sample], sizes: Sequence[int], values: np.ndarray) -> np.ndarray:
    """Logarithms of measured over fitted seconds."""
    fitted = np.array([_row(s, sizes) for s in samples]) @ values
    measured = np.array([s.seconds for s in samples])
    return np.log(measured / np.maximum(fitted, 1e-9))


def _with_overhead(cost: Cost, first_tokens: Sequence[Sample]) -> Cost:
    if not first_tokens:
        return cost
    table = cost.table(max(s.tokens for s in first_tokens))
    rest = [
        s.seconds - table[s.tokens] - cost.pair_s * s.pairs - cost.context_s * s.context
        for s in first_tokens
    ]
    overhead = max(0.0, statistics.median(rest))
    return Cost.from_dict(cost.to_dict() | {"overhead_s": round(overhead, 6)})
