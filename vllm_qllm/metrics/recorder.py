# SPDX-License-Identifier: Apache-2.0
"""What the engine's thread calls; every call is a few stores into memory."""

from __future__ import annotations

import logging
from bisect import bisect_left
from pathlib import Path

from vllm_qllm.config import PriorityConfig
from vllm_qllm.config.priority_class import BUDGET
from vllm_qllm.metrics.layout import Layout
from vllm_qllm.metrics.names import METRICS, OUTCOMES
from vllm_qllm.metrics.store import Store

logger = logging.getLogger("vllm.qllm")

# Bounds of the buckets, and the first slot of each class.
Histogram = tuple[tuple[float, ...], list[int]]

_BUCKETS = {metric.name: metric.buckets for metric in METRICS if metric.kind == "histogram"}


class Recorder:
    """Records one engine's numbers. Levels count from 0, the most urgent class.

    Not thread-safe: one thread calls it.

    Args:
        config: for the names of the classes.
        path: of the store (see :func:`vllm_qllm.metrics.location.store_path`); None records into
            memory that nobody reads, and so does one that cannot be written, after a warning: a
            full disk may cost the metrics, but not the service.
    """

    def __init__(self, config: PriorityConfig, path: str | Path | None = None) -> None:
        self._classes = classes = tuple(c.name for c in config.classes)
        self._layout = layout = Layout(classes)
        try:
            self._store = Store(layout, path)
        except OSError as error:
            logger.warning("Metrics of priority classes are left out of /metrics: %s.", error)
            self._store = Store(layout)
        self._slots = self._store.slots
        self._running = self._by_class("qllm_requests_running")
        self._waiting = self._by_class("qllm_requests_waiting")
        self._suspended = self._by_class("qllm_requests_suspended")
        self._parked_requests = self._by_class("qllm_parked_requests")
        self._parked_blocks = self._by_class("qllm_parked_blocks")
        self._spilled = self._by_class("qllm_spilled_bytes")
        self._saved = self._by_class("qllm_saved_tokens_total")
        self._recomputed = self._by_class("qllm_recomputed_tokens_total")
        self._abandoned = self._by_class("qllm_abandoned_tokens_total")
        self._spill_errors = self._by_class("qllm_spill_errors_total")
        self._restored_in = self._histogram("qllm_restore_seconds")
        self._preemptions = self._by_class("qllm_preemptions_total")
        self._generated = self._by_class("qllm_generated_tokens_total")
        self._prompt = self._by_class("qllm_prompt_tokens_total")
        self._requests = [
            {outcome: layout.offset("qllm_requests_total", name, outcome) for outcome in OUTCOMES}
            for name in classes
        ]
        self._suspensions = self._by_pair("qllm_suspensions_total", (*classes, BUDGET))
        self._nested = self._by_pair("qllm_nested_steps_total", classes)
        self._first_token = self._histogram("qllm_time_to_first_token_seconds")
        self._per_token = self._histogram("qllm_time_per_output_token_seconds")
        self._end_to_end = self._histogram("qllm_end_to_end_seconds")
        self._response = self._histogram("qllm_response_seconds")
        self._suspended_for = self._histogram("qllm_suspended_seconds")

    def _by_class(self, metric: str) -> list[int]:
        return [self._layout.offset(metric, name) for name in self._classes]

    def _by_pair(self, metric: str, others: tuple[str, ...]) -> list[list[int]]:
        return [[self._layout.offset(metric, of, by) for by in others] for of in self._classes]

    def _histogram(self, metric: str) -> Histogram:
        return _BUCKETS[metric], self._by_class(metric)

    def _observe(self, histogram: Histogram, level: int, value: float) -> None:
        buckets, offsets = histogram
        start = offsets[level]
        # A bucket holds what is at most its bound, as Prometheus's "le" says.
        self._slots[start + bisect_left(buckets, value)] += 1.0
        self._slots[start + len(buckets) + 1] += value

    def running(self, level: int, n: int) -> None:
        """``n`` requests of the class are admitted and not in a suspended step."""
        self._slots[self._running[level]] = n

    def waiting(self, level: int, n: int) -> None:
        """``n`` requests of the class wait to be admitted."""
        self._slots[self._waiting[level]] = n

    def suspended(self, level: int, n: int) -> None:
        """``n`` requests of the class are in suspended steps."""
        self._slots[self._suspended[level]] = n

    def parked(self, level: int, requests: int, blocks: int) -> None:
        """``requests`` of the class are held back, and keep ``blocks`` KV blocks."""
        self._slots[self._parked_requests[level]] = requests
        self._slots[self._parked_blocks[level]] = blocks

    def spilled(self, level: int, size: int) -> None:
        """The host holds ``size`` bytes of the class's KV."""
        self._slots[self._spilled[level]] = size

    def came_back(self, level: int, saved: int, again: int) -> None:
        """A preempted request kept ``saved`` tokens and has to compute others ``again``."""
        self._slots[self._saved[level]] += saved
        self._slots[self._recomputed[level]] += again

    def abandoned(self, level: int, n: int) -> None:
        """A step was given up that computed ``n`` tokens of a request of the class."""
        self._slots[self._abandoned[level]] += n

    def restored_in(self, level: int, seconds: float) -> None:
        """A step of the class copied KV back from the host for ``seconds``."""
        self._observe(self._restored_in, level, seconds)

    def spill_errors(self, level: int, n: int) -> None:
        """``n`` blocks could not be copied to the host or back in a step of the class."""
        self._slots[self._spill_errors[level]] += n

    def suspension(self, of: int, by: int | None) -> None:
        """A step of class ``of`` was suspended by class ``by``; None: its time slice ended."""
        self._slots[self._suspensions[of][-1 if by is None else by]] += 1.0

    def nested_step(self, of: int, by: int) -> None:
        """A step of class ``by`` ran while one of class ``of`` was suspended."""
        self._slots[self._nested[of][by]] += 1.0

    def suspended_for(self, level: int, seconds: float) -> None:
        """One suspension of a step of the class lasted ``seconds``."""
        self._observe(self._suspended_for, level, seconds)

    def response(self, level: int, seconds: float) -> None:
        """A request's own step began to work ``seconds`` after its arrival in the engine."""
        self._observe(self._response, level, seconds)

    def first_token(self, level: int, seconds: float) -> None:
        """A request got its first token ``seconds`` after its arrival in the engine."""
        self._observe(self._first_token, level, seconds)

    def finished(
        self, level: int, outcome: str, end_to_end_seconds: float, per_token_seconds: float | None
    ) -> None:
        """A request ended.

        Args:
            level: its class.
            outcome: one of :data:`~vllm_qllm.metrics.names.OUTCOMES`.
            end_to_end_seconds: since its arrival in the engine.
            per_token_seconds: mean time between its tokens; None when it had fewer than two.
        """
        self._slots[self._requests[level][outcome]] += 1.0
        self._observe(self._end_to_end, level, end_to_end_seconds)
        if per_token_seconds is not None:
            self._observe(self._per_token, level, per_token_seconds)

    def prompt_tokens(self, level: int, n: int) -> None:
        """A request with ``n`` prompt tokens got its first token."""
        self._slots[self._prompt[level]] += n

    def generated_tokens(self, level: int, n: int) -> None:
        """Requests of the class got ``n`` more tokens."""
        self._slots[self._generated[level]] += n

    def preemption(self, level: int) -> None:
        """A request of the class lost its KV blocks."""
        self._slots[self._preemptions[level]] += 1.0

    def close(self) -> None:
        """Let go of the store; nothing can be recorded afterwards."""
        self._store.close()
