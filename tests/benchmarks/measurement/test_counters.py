# SPDX-License-Identifier: Apache-2.0
"""The engine's counters: what is kept of /metrics, and what grew between two looks."""

from __future__ import annotations

import math

import pytest

from benchmarks.measurement.counters import histogram, increase, parse, quantile_bounds, running
from benchmarks.record.summary import of_class, suspensions
from tests.benchmarks.records import record, request

TEXT = """# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 2.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 3.0
# TYPE vllm:num_preemptions counter
vllm:num_preemptions_total{engine="0",model_name="m"} 0.0
vllm:num_preemptions_created{engine="0",model_name="m"} 1.7e+09
# TYPE python_info gauge
python_info{version="3"} 1.0
# TYPE qllm_suspensions counter
qllm_suspensions_total{of="best_effort",by="latency_sensitive"} 7.0
qllm_suspensions_total{of="best_effort",by="budget"} 2.0
# TYPE qllm_response_seconds histogram
qllm_response_seconds_bucket{class="latency_sensitive",le="0.001"} 0.0
qllm_response_seconds_bucket{class="latency_sensitive",le="0.002"} 5.0
qllm_response_seconds_bucket{class="latency_sensitive",le="0.004"} 9.0
qllm_response_seconds_bucket{class="latency_sensitive",le="+Inf"} 10.0
qllm_response_seconds_count{class="latency_sensitive"} 10.0
qllm_response_seconds_sum{class="latency_sensitive"} 0.5
"""


def test_zeros_foreign_samples_and_labels_that_say_nothing_are_left_out() -> None:
    samples = parse(TEXT)
    assert samples["vllm:num_requests_running"] == 2.0
    assert running(samples) == 5.0
    assert not any("preemptions" in name or "python" in name for name in samples)
    assert samples['qllm_suspensions_total{by="budget",of="best_effort"}'] == 2.0


def test_a_counter_grew_by_what_it_had_not_before_over_all_labels_not_named() -> None:
    after = parse(TEXT)
    before = {'qllm_suspensions_total{by="budget",of="best_effort"}': 1.0}
    name = "qllm_suspensions_total"
    assert increase(before, after, name) == 8.0
    assert increase(before, after, name, by="budget") == 1.0
    assert increase(before, after, name, by="nobody") == 0.0


def test_quantiles_of_a_histogram_are_bounds_of_a_bucket() -> None:
    after = parse(TEXT)
    buckets = histogram({}, after, "qllm_response_seconds", **{"class": "latency_sensitive"})
    assert buckets == [(0.002, 5.0), (0.004, 9.0), (math.inf, 10.0)]
    assert quantile_bounds(buckets, 0.5) == (0.0, 0.002)
    assert quantile_bounds(buckets, 0.9) == (0.002, 0.004)
    assert quantile_bounds(buckets, 0.99) == (0.004, math.inf)
    assert quantile_bounds([], 0.5) is None
    assert histogram(after, after, "qllm_response_seconds")[-1][1] == 0.0
    assert quantile_bounds(histogram(after, after, "qllm_response_seconds"), 0.5) is None


def test_a_record_says_how_often_steps_were_suspended_in_its_window() -> None:
    before = parse(TEXT.replace("} 7.0", "} 4.0"))
    run = record("s", request(0, 11.0, 0.1), before=before, after=parse(TEXT))
    assert suspensions(run) == (3.0, 3.0)
    fresh = record("s", request(0, 11.0, 0.1), after=parse(TEXT))
    assert suspensions(fresh) == (9.0, 7.0)
    assert of_class(fresh, "LS").response["p50"] == pytest.approx((0.0, 0.002))
