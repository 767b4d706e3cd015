# SPDX-License-Identifier: Apache-2.0
"""A cost model is found again in steps that were made from one."""

from __future__ import annotations

import random

import pytest

from vllm_qllm.capacity.cost import Cost
from vllm_qllm.capacity.errors import CapacityError
from vllm_qllm.capacity.fit import Sample, fit, pairs

TRUE = Cost(
    ((1, 0.036), (2, 0.05), (4, 0.07), (8, 0.1), (256, 0.25), (2048, 1.1)),
    context_s=4e-7,
    pair_s=2e-8,
    overhead_s=0.015,
)
SIZES = [n for n, _ in TRUE.step]


def steps(noise: float, seed: int = 0, outliers: float = 0.0) -> list[Sample]:
    draw = random.Random(seed)
    table = TRUE.table(2048)
    samples = []
    for tokens in SIZES:
        for _ in range(60):
            small = tokens <= 8
            context = tokens * draw.choice([50, 2000]) if small else 0
            new = 0 if small else pairs(tokens, draw.choice([0, 1500]))
            seconds = table[tokens] + TRUE.context_s * context + TRUE.pair_s * new
            seconds *= draw.lognormvariate(0, noise) if noise else 1.0
            if draw.random() < outliers:
                seconds *= 5
            samples.append(Sample(tokens, context, new, seconds))
    return samples


@pytest.mark.parametrize(("noise", "outliers", "within"), [(0, 0, 1e-3), (0.08, 0.03, 0.05)])
def test_parameters_are_found(noise: float, outliers: float, within: float) -> None:
    firsts = [Sample(64, 0, pairs(64), 0.015 + TRUE.table(64)[64] + TRUE.pair_s * pairs(64))]
    cost = fit(steps(noise, outliers=outliers), firsts)
    assert [n for n, _ in cost.step] == SIZES
    for (_, found), (_, true) in zip(cost.step, TRUE.step, strict=True):
        assert found == pytest.approx(true, rel=within)
    assert cost.context_s == pytest.approx(TRUE.context_s, rel=10 * within)
    assert cost.pair_s == pytest.approx(TRUE.pair_s, rel=10 * within)
    assert cost.noise == pytest.approx(noise, abs=0.02)
    assert cost.overhead_s == pytest.approx(0.015, abs=0.005)


def test_what_the_samples_leave_open_costs_nothing() -> None:
    """Prefills of one length: whether their tokens or their attention took the time is open."""
    samples = [Sample(1, 100, 0, 0.03), Sample(2000, 0, pairs(2000), 1.3)] * 5
    cost = fit(samples)
    total = cost.table(2000)[2000] + cost.pair_s * pairs(2000)
    assert total == pytest.approx(1.3, rel=1e-3)
    assert cost.table(1)[1] + 100 * cost.context_s == pytest.approx(0.03, rel=1e-3)


def test_nearby_large_sizes_are_one() -> None:
    samples = [Sample(n, 0, 0.0, 0.02 + n * 5e-4) for n in (1, 2, 2000, 2001, 2002, 2003)]
    assert [n for n, _ in fit(samples).step] == [1, 2, 2002]


@pytest.mark.parametrize("samples", [[], [Sample(4, 0, 0, 0.1)] * 9])
def test_too_few_samples_are_named(samples: list[Sample]) -> None:
    with pytest.raises(CapacityError, match="two sizes or more"):
        fit(samples)
