# SPDX-License-Identifier: Apache-2.0
"""Reads the stores of all engines for one scrape of ``/metrics``."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from vllm_qllm.metrics.names import Metric
from vllm_qllm.metrics.stores import Stores, summed

logger = logging.getLogger("vllm.qllm")

Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily

_FAMILIES = {
    "gauge": GaugeMetricFamily,
    "counter": CounterMetricFamily,
    "histogram": HistogramMetricFamily,
}


class PriorityCollector(Collector):
    """Yields every metric; those of several engines are summed.

    Args:
        classes: class names, most urgent first.
        prefix: of the stores, which are ``<prefix>.<engine index>``.
    """

    def __init__(self, classes: Sequence[str], prefix: str) -> None:
        self._stores = Stores(classes, prefix)
        self._layout = self._stores.layout
        self._complained = False

    def describe(self) -> Iterator[Family]:
        """The families without samples: registering must not depend on an engine that runs."""
        yield _engines()
        yield from map(self._family, self._layout.metrics)

    def collect(self) -> Iterator[Family]:
        """The families as they are now; without samples while no engine has begun to record."""
        engines = self._stores.each()
        if not engines and not self._complained:
            self._complained = True
            logger.error("Metrics of priority classes are empty: no engine records any here.")
        slots = summed(engines)
        yield _engines(len(engines))
        for metric in self._layout.metrics:
            family = self._family(metric)
            if slots is not None:
                for values in self._layout.series(metric):
                    start = self._layout.offset(metric.name, *values)
                    end = start + self._layout.width(metric)
                    self._add(family, metric, values, slots[start:end])
            yield family

    def _family(self, metric: Metric) -> Family:
        labels = [label.name for label in metric.labels]
        return _FAMILIES[metric.kind](metric.name, metric.help, labels=labels)

    @staticmethod
    def _add(family: Family, metric: Metric, values: Sequence[str], slots: list[float]) -> None:
        if isinstance(family, HistogramMetricFamily):
            bounds = [*map(floatToGoString, metric.buckets), "+Inf"]
            counts = accumulate(slots[:-1])
            family.add_metric(values, list(zip(bounds, counts, strict=True)), sum_value=slots[-1])
        else:
            family.add_metric(values, slots[0])


def _engines(number: int | None = None) -> GaugeMetricFamily:
    """What to alert on: without an engine that records all others are without samples."""
    text = "Engines whose numbers these metrics are the sums of."
    return GaugeMetricFamily("qllm_recording_engines", text, value=number)
