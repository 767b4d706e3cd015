# SPDX-License-Identifier: Apache-2.0
"""One class in the status document: what it may, what it has now, how it fared in the window."""

from __future__ import annotations

from typing import Any

from vllm_qllm.config import PriorityClass, PriorityConfig
from vllm_qllm.metrics.names import METRICS, OUTCOMES, Metric
from vllm_qllm.status.histogram import histogram_quantile, within
from vllm_qllm.status.history import Window

PERCENTS = (50, 90, 99)
POINTS = 60
TTFT = "qllm_time_to_first_token_seconds"
# Key in the document, and metric.
QUEUE = {
    "running": "qllm_requests_running",
    "waiting": "qllm_requests_waiting",
    "suspended": "qllm_requests_suspended",
    "parked": "qllm_parked_requests",
    "parked_blocks": "qllm_parked_blocks",
    "spilled_bytes": "qllm_spilled_bytes",
}
COUNTERS = {
    "generated_tokens": "qllm_generated_tokens_total",
    "prompt_tokens": "qllm_prompt_tokens_total",
    "preemptions": "qllm_preemptions_total",
    "saved_tokens": "qllm_saved_tokens_total",
    "recomputed_tokens": "qllm_recomputed_tokens_total",
}
HISTOGRAMS = {
    "time_to_first_token": TTFT,
    "response": "qllm_response_seconds",
    "time_per_output_token": "qllm_time_per_output_token_seconds",
    "end_to_end": "qllm_end_to_end_seconds",
    "suspended": "qllm_suspended_seconds",
}
_METRICS: dict[str, Metric] = {metric.name: metric for metric in METRICS}


def class_document(config: PriorityConfig, level: int, window: Window | None) -> dict[str, Any]:
    """A class, as ``docs/status.md`` says.

    Args:
        config: of the server.
        level: of the class.
        window: the numbers; None while there are none, and then only what is configured is there.
    """
    cls = config.classes[level]
    before = config.classes[level - 1].max_priority if level else None
    found: dict[str, Any] = {
        "name": cls.name,
        "min_priority": None if before is None else before + 1,
        "max_priority": cls.max_priority,
        "max_wait_ms": cls.max_wait_ms,
        "slice_ms": cls.slice_ms,
        "service_tiers": [t for t, p in config.service_tiers.items() if config.level(p) == level],
    }
    if window is None:
        return found | {"queue": None, "recent": None, "objective": None, "progress": []}
    return found | {
        "queue": {key: int(window.now(name, cls.name)) for key, name in QUEUE.items()},
        "recent": _recent(cls.name, window),
        "objective": _objective(cls, window),
        "progress": [
            round(rate, 3) for rate in window.rates(POINTS, COUNTERS["generated_tokens"], cls.name)
        ],
    }


def _recent(name: str, window: Window) -> dict[str, Any]:
    ended = {o: int(window.grown("qllm_requests_total", name, o)) for o in OUTCOMES}
    found: dict[str, Any] = {"ended": ended}
    found |= {key: int(window.grown(metric, name)) for key, metric in COUNTERS.items()}
    for tokens in ("generated_tokens", "prompt_tokens"):
        rate = found[tokens] / window.seconds if window.seconds > 0 else 0.0
        found[f"{tokens}_per_second"] = round(rate, 3)
    return found | {key: _times(name, metric, window) for key, metric in HISTOGRAMS.items()}


def _times(name: str, metric: str, window: Window) -> dict[str, float | int | None]:
    bounds = _METRICS[metric].buckets
    *counts, total = window.counts(metric, window.layout.width(_METRICS[metric]), name)
    number = int(sum(counts))
    found: dict[str, float | int | None] = {
        "count": number,
        "mean": total / number if number else None,
    }
    return found | {f"p{p}": histogram_quantile(bounds, counts, p) for p in PERCENTS}


def _objective(cls: PriorityClass, window: Window) -> dict[str, Any] | None:
    if cls.slo_ttft_ms is None:
        return None
    metric = _METRICS[TTFT]
    *counts, _ = window.counts(TTFT, window.layout.width(metric), cls.name)
    kept, number = within(metric.buckets, counts, cls.slo_ttft_ms / 1000), sum(counts)
    return {
        "ttft_ms": cls.slo_ttft_ms,
        "share": cls.slo_share,
        "requests": int(number),
        "late": round(number - kept),
        "kept_share": kept / number if number else None,
    }
