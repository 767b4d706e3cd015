# SPDX-License-Identifier: Apache-2.0
"""The engine's own counters, as ``/metrics`` shows them."""

import math
import re
from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

# What is kept of stock vLLM's; of ours, everything.
STOCK = (
    "vllm:num_preemptions",
    "vllm:prompt_tokens",
    "vllm:generation_tokens",
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:request_queue_time_seconds",
)
# Labels that say nothing here: there is one engine and one model.
DROPPED = ("engine", "model_name")
CLASS_OF = {"LS": "latency_sensitive", "BE": "best_effort"}


def parse(text: str) -> dict[str, float]:
    """Samples that are not zero, such as ``qllm_suspensions_total{by="...",of="..."}``."""
    found = {}
    for family in text_string_to_metric_families(text):
        if not family.name.startswith("qllm_") and family.name not in STOCK:
            continue
        for sample in family.samples:
            if sample.value and not sample.name.endswith("_created"):
                labels = {k: v for k, v in sample.labels.items() if k not in DROPPED}
                inner = ",".join(f'{k}="{v}"' for k, v in sorted(labels.items()))
                found[f"{sample.name}{{{inner}}}" if inner else sample.name] = sample.value
    return found


def running(samples: Mapping[str, float]) -> float:
    """Requests that the engine has not finished."""
    return sum(samples.get(f"vllm:num_requests_{s}", 0.0) for s in ("running", "waiting"))


def labels_of(sample: str) -> tuple[str, dict[str, str]]:
    """Name and labels of a sample."""
    name, _, inner = sample.partition("{")
    return name, dict(re.findall(r'(\w+)="([^"]*)"', inner))


def increase(
    before: Mapping[str, float], after: Mapping[str, float], name: str, **labels: str
) -> float:
    """How much the counters with this name and at least these labels grew, in all."""
    total = 0.0
    for sample, value in after.items():
        its_name, its_labels = labels_of(sample)
        if its_name == name and labels.items() <= its_labels.items():
            total += value - before.get(sample, 0.0)
    return total


def histogram(
    before: Mapping[str, float], after: Mapping[str, float], name: str, **labels: str
) -> list[tuple[float, float]]:
    """Growth of a histogram: (upper bound, how many were at most that), bounds ascending.

    Samples that are zero were left out, so that a bound may be missing in ``before``: nothing had
    reached it.
    """
    bounds: dict[float, float] = {}
    for sample, value in after.items():
        its_name, its_labels = labels_of(sample)
        if its_name == f"{name}_bucket" and labels.items() <= its_labels.items():
            bound = float(its_labels["le"])
            bounds[bound] = bounds.get(bound, 0.0) + value - before.get(sample, 0.0)
    return sorted(bounds.items())


def quantile_bounds(buckets: list[tuple[float, float]], share: float) -> tuple[float, float] | None:
    """(lower, upper) bound of the bucket that holds a quantile; None of nothing.

    The truth lies in between; the last bucket has no upper bound.
    """
    if not buckets or not buckets[-1][1]:
        return None
    wanted, lower = share * buckets[-1][1], 0.0
    for bound, count in buckets:
        if count >= wanted and count > 0:
            return lower, bound
        lower = bound
    return lower, math.inf
