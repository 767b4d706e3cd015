# SPDX-License-Identifier: Apache-2.0
"""Puts the numbers of this process's server onto the ``/metrics`` that it answers."""

from __future__ import annotations

import functools
import os
import weakref
from collections.abc import Iterable
from itertools import chain

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from vllm_qllm.access.collector import AccessCollector
from vllm_qllm.api.standstill import StandstillCollector
from vllm_qllm.metrics import location
from vllm_qllm.metrics.collector import PriorityCollector

_registered: weakref.WeakSet[CollectorRegistry] = weakref.WeakSet()


def with_priority_metrics(registry: CollectorRegistry) -> CollectorRegistry:
    """Register the collector once, when this process serves with a priority policy.

    One of several API servers makes a registry for each scrape and asks nobody for it; what all
    of those have in common is the multiprocess collector: see :func:`with_priority_families`.
    """
    prepared = location.prepared()
    several = "PROMETHEUS_MULTIPROC_DIR" in os.environ
    if prepared is not None and not several and registry not in _registered:
        for collector in _collectors(prepared):
            registry.register(collector)
        _registered.add(registry)
    return registry


def with_priority_families(families: Iterable[Family]) -> Iterable[Family]:
    """What a multiprocess collector found, and our families when a policy is on here."""
    prepared = location.prepared()
    if prepared is None:
        return families
    return chain(families, *(collector.collect() for collector in _collectors(prepared)))


@functools.cache
def _collectors(prepared: location.Prepared) -> tuple[Collector, ...]:
    classes = PriorityCollector(prepared.classes, prepared.prefix)
    return classes, AccessCollector(), StandstillCollector()
