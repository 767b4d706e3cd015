# SPDX-License-Identifier: Apache-2.0
"""Every kind of event once, as data: its name, what it is about, and its numbers in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vllm_qllm.config.priority_class import BUDGET
from vllm_qllm.execution.protocol import WHERE
from vllm_qllm.metrics.names import OUTCOMES

MAX_VALUES = 5
NO_CLASS = 255  # its place is one byte, and there are far fewer classes

Unit = Literal["number", "class", "where", "outcome", "seconds"]


@dataclass(frozen=True)
class Value:
    """One number of an event.

    Attributes:
        name: its key in JSON.
        unit: what the stored integer means: a ``number``; the level of a ``class``, or NO_CLASS for
            the end of a time slice; an index into the places of yield points (``where``) or into
            the outcomes of requests; or nanoseconds, which JSON shows as ``seconds``.
    """

    name: str
    unit: Unit = "number"

    def show(self, stored: int, classes: tuple[str, ...]) -> int | float | str:
        """The value as JSON has it."""
        match self.unit:
            case "class":
                return BUDGET if stored == NO_CLASS else classes[stored]
            case "where":
                return WHERE[stored]
            case "outcome":
                return OUTCOMES[stored]
            case "seconds":
                return stored / 1e9
        return stored


@dataclass(frozen=True)
class Kind:
    """One kind of event.

    Attributes:
        name: as JSON has it.
        about: ``step`` or ``request``, whose number the event carries; "" for neither.
        values: its numbers, at most MAX_VALUES.
        ends: whether nothing about its step or request follows.
        state: whether it holds for its class until the next of its kind.
    """

    name: str
    about: str
    values: tuple[Value, ...]
    ends: bool = False
    state: bool = False


def _kind(name: str, about: str, *values: str | Value, ends: bool = False) -> Kind:
    return Kind(name, about, tuple(v if isinstance(v, Value) else Value(v) for v in values), ends)


def _state(name: str, *values: str) -> Kind:
    return Kind(name, "", tuple(map(Value, values)), state=True)


STEP_STARTED = _kind("step_started", "step", "depth", "lane", "tokens", "requests", "decode_rows")
STEP_SUSPENDED = _kind(
    "step_suspended",
    "step",
    "depth",
    "yield_point",
    "layer",
    Value("where", "where"),
    Value("by", "class"),
)
STEP_RESUMED = _kind("step_resumed", "step", "depth")
STEP_COPIED = _kind(
    "step_copied", "step", "depth", "offloaded", "restored", "failed", Value("copying", "seconds")
)
STEP_FINISHED = _kind("step_finished", "step", "depth", ends=True)
REQUEST_ARRIVED = _kind("request_arrived", "request", "prompt_tokens", "max_tokens")
REQUEST_STARTED = _kind("request_started", "request", "step", Value("response", "seconds"))
REQUEST_FIRST_TOKEN = _kind("request_first_token", "request")
REQUEST_PREEMPTED = _kind("request_preempted", "request", "computed", "spilled")
REQUEST_RESUMED = _kind("request_resumed", "request", "saved", "recomputed")
REQUEST_FINISHED = _kind(
    "request_finished", "request", "tokens", Value("outcome", "outcome"), ends=True
)
QUEUE = _state("queue", "waiting", "running", "suspended")
KV = _state("kv", "parked_requests", "parked_blocks", "spilled_bytes")

# The order is that of the codes in a ring.
KINDS = (
    STEP_STARTED,
    STEP_SUSPENDED,
    STEP_RESUMED,
    STEP_FINISHED,
    REQUEST_ARRIVED,
    REQUEST_STARTED,
    REQUEST_FIRST_TOKEN,
    REQUEST_PREEMPTED,
    REQUEST_FINISHED,
    QUEUE,
    STEP_COPIED,
    REQUEST_RESUMED,
    KV,
)
CODES = {kind.name: code for code, kind in enumerate(KINDS)}
