# SPDX-License-Identifier: Apache-2.0
"""Every metric once, as data: name, kind, help, labels, buckets.

Label values are class names and fixed words, never raw priorities or request ids: the number of
series is known before the server starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from vllm_qllm.config.priority_class import BUDGET

Kind = Literal["gauge", "counter", "histogram"]

# As vLLM names them; "repetition" is its detector of looping outputs.
OUTCOMES = ("stop", "length", "abort", "error", "repetition")


@dataclass(frozen=True)
class Label:
    """One label of a metric.

    Attributes:
        name: as Prometheus sees it.
        by_class: whether every class name is a value of it.
        words: its other values.
    """

    name: str
    by_class: bool = True
    words: tuple[str, ...] = ()

    def values(self, classes: Sequence[str]) -> tuple[str, ...]:
        """All values the label can have, given the class names."""
        return (*(classes if self.by_class else ()), *self.words)


@dataclass(frozen=True)
class Metric:
    """One family.

    Attributes:
        name: full name, with ``_total`` on counters.
        kind: gauge, counter or histogram.
        help: one sentence for the person who reads a dashboard.
        labels: in order.
        buckets: upper bounds of a histogram, ascending, without infinity; seconds.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[Label, ...]
    buckets: tuple[float, ...] = ()


CLASS = (Label("class"),)
OF = Label("of")

# From a millisecond to minutes, and finer where the differences are that people feel.
SECONDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.175, 0.25, 0.375, 0.5, 0.75,
    1.0, 1.5, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0,
)  # fmt: skip
# A token and a yield point are faster than a request.
SHORT_SECONDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.004, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04,
    0.06, 0.08, 0.12, 0.2, 0.35, 0.6, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip

METRICS = (
    Metric("qllm_requests_running", "gauge", "Admitted requests, without suspended ones.", CLASS),
    Metric("qllm_requests_waiting", "gauge", "Requests waiting, preempted ones included.", CLASS),
    Metric("qllm_requests_suspended", "gauge", "Requests in suspended steps.", CLASS),
    Metric(
        "qllm_requests_total",
        "counter",
        "Requests that ended, by how.",
        (*CLASS, Label("outcome", by_class=False, words=OUTCOMES)),
    ),
    Metric(
        "qllm_suspensions_total",
        "counter",
        "Suspensions of a step, by the class that took over; budget when its time slice had ended, "
        "or an operator called.",
        (OF, Label("by", words=(BUDGET,))),
    ),
    Metric(
        "qllm_nested_steps_total",
        "counter",
        "Steps that ran while a less urgent one was suspended.",
        (OF, Label("by")),
    ),
    Metric("qllm_preemptions_total", "counter", "Requests that lost their KV blocks.", CLASS),
    Metric(
        "qllm_parked_requests",
        "gauge",
        "Admitted requests that are held back and keep their KV blocks.",
        CLASS,
    ),
    Metric("qllm_parked_blocks", "gauge", "KV blocks of held-back requests.", CLASS),
    Metric("qllm_spilled_bytes", "gauge", "KV on the host, copied ahead or spilled.", CLASS),
    Metric(
        "qllm_saved_tokens_total",
        "counter",
        "Tokens that resumed requests had cached or on the host.",
        CLASS,
    ),
    Metric(
        "qllm_recomputed_tokens_total",
        "counter",
        "Tokens that resumed requests had to compute again.",
        CLASS,
    ),
    Metric(
        "qllm_abandoned_tokens_total",
        "counter",
        "Tokens scheduled in steps that were given up: for the KV blocks of their requests, for an "
        "operator's call, or because nobody wanted them any more.",
        CLASS,
    ),
    Metric(
        "qllm_spill_errors_total",
        "counter",
        "KV blocks that could not be copied to the host or back, in steps of the class.",
        CLASS,
    ),
    Metric(
        "qllm_restore_seconds",
        "histogram",
        "How long a step copied KV back from the host.",
        CLASS,
        SHORT_SECONDS,
    ),
    Metric("qllm_generated_tokens_total", "counter", "Tokens generated.", CLASS),
    Metric(
        "qllm_prompt_tokens_total",
        "counter",
        "Prompt tokens of requests that got their first token.",
        CLASS,
    ),
    Metric(
        "qllm_time_to_first_token_seconds",
        "histogram",
        "From arrival in the engine to the first token.",
        CLASS,
        SECONDS,
    ),
    Metric(
        "qllm_time_per_output_token_seconds",
        "histogram",
        "Mean time between the tokens of a finished request.",
        CLASS,
        SHORT_SECONDS,
    ),
    Metric(
        "qllm_end_to_end_seconds",
        "histogram",
        "From arrival in the engine to the end of the request, however it ended.",
        CLASS,
        SECONDS,
    ),
    Metric(
        "qllm_response_seconds",
        "histogram",
        "From arrival in the engine to the first work of the request's own step.",
        CLASS,
        SHORT_SECONDS,
    ),
    Metric(
        "qllm_suspended_seconds",
        "histogram",
        "How long one suspension of a step lasted.",
        CLASS,
        SHORT_SECONDS,
    ),
)
