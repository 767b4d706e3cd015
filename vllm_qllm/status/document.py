# SPDX-License-Identifier: Apache-2.0
"""The JSON document that ``/qllm/status`` answers, and that the page shows."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from vllm_qllm import __version__
from vllm_qllm.access.access_control import this_access
from vllm_qllm.api import draining
from vllm_qllm.api.standstill import Standstill
from vllm_qllm.config import PriorityConfig
from vllm_qllm.config.priority_class import BUDGET
from vllm_qllm.status.classes import class_document
from vllm_qllm.status.history import History, Window
from vllm_qllm.status.tenants import tenants_document

FORMAT, VERSION = "vllm-qllm status", 1
SERVING, DRAINING, STALLED, DEAD = "serving", "draining", "stalled", "engine dead"
# Fields of the configuration that are shown as they are.
LIMITS = (
    "yield_points",
    "reserved_kv",
    "ride_slowdown",
    "max_preemptions",
    "progress_cap",
    "park_fraction",
    "spill_bytes",
    "program_ttl_ms",
    "order",
    "stall_limit_ms",
)


@dataclass(frozen=True)
class Source:
    """Where the document comes from.

    Attributes:
        config: that the engine was given, after what it cannot do was taken out of it.
        models: names under which the model is served.
        history: of the numbers.
        client: of the engine, an ``AsyncLLM``.
        standstill: of the engine.
    """

    config: PriorityConfig
    models: tuple[str, ...]
    history: History
    client: Any
    standstill: Standstill

    @property
    def state(self) -> str:
        """Whether requests are taken, as ``/health`` knows it, and why not."""
        if self.client.errored:
            return DEAD
        if draining.begun(self.client):
            return DRAINING
        return STALLED if self.standstill.exceeded else SERVING


def document(source: Source, seconds: float) -> dict[str, Any]:
    """How the server is, and was in the last ``seconds``; 0 for all since its start.

    Returns:
        As ``docs/status.md`` says.
    """
    config = source.config
    window = source.history.window(seconds)
    access = this_access()
    return {
        "format": FORMAT,
        "version": VERSION,
        "time": time.time(),
        "state": source.state,
        "stalled_seconds": round(source.standstill.seconds(), 3),
        "seconds": seconds,
        "covered": None if window is None else window.seconds,
        "versions": {"vllm_qllm": __version__, "vllm": _vllm_version()},
        "models": list(source.models),
        "policy": {"name": config.policy} | {name: getattr(config, name) for name in LIMITS},
        "timeline": config.timeline,
        "classes": [class_document(config, level, window) for level in range(len(config.classes))],
        "suspensions": [] if window is None else _suspensions(config, window),
        "tenants": None if access is None else tenants_document(access),
    }


def _suspensions(config: PriorityConfig, window: Window) -> list[dict[str, Any]]:
    """For each two classes of which one may suspend the other, and each that may end its slice."""
    names = [c.name for c in config.classes]
    found = []
    for level, of in enumerate(names):
        for by in (*names[:level], BUDGET):
            nested = None if by == BUDGET else int(window.grown("qllm_nested_steps_total", of, by))
            suspensions = int(window.grown("qllm_suspensions_total", of, by))
            found.append({"of": of, "by": by, "suspensions": suspensions, "nested_steps": nested})
    return found


def _vllm_version() -> str:
    import vllm

    return str(vllm.__version__)
