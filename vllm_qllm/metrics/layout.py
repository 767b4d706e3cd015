# SPDX-License-Identifier: Apache-2.0
"""Where each number stands: a function of the metrics and the class names, so all sides agree."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import product

from vllm_qllm.metrics.names import METRICS, Metric

Values = tuple[str, ...]


class Layout:
    """Slots of 8-byte floats.

    A gauge or counter has one slot for each combination of label values. A histogram has one for
    each bucket (not cumulative), one for what is above the last bound, and one for the sum.

    Attributes:
        classes: class names, most urgent first.
        size: number of slots.
        digest: 32 bytes that differ when any name, label, bucket or class differs.
    """

    def __init__(self, classes: Sequence[str], metrics: Sequence[Metric] = METRICS) -> None:
        self.classes = tuple(classes)
        self.metrics = tuple(metrics)
        self._offsets: dict[tuple[str, Values], int] = {}
        self.size = 0
        for metric in self.metrics:
            for values in self.series(metric):
                self._offsets[metric.name, values] = self.size
                self.size += self.width(metric)
        self.digest = hashlib.sha256(repr((self.classes, self.metrics)).encode()).digest()

    @staticmethod
    def width(metric: Metric) -> int:
        """Number of slots of one series."""
        return len(metric.buckets) + 2 if metric.kind == "histogram" else 1

    def series(self, metric: Metric) -> Iterator[Values]:
        """All combinations of label values, each once."""
        return product(*(label.values(self.classes) for label in metric.labels))

    def offset(self, name: str, *values: str) -> int:
        """First slot of a series; KeyError when there is no such metric or label value."""
        return self._offsets[name, values]
