# SPDX-License-Identifier: Apache-2.0
"""The whole configuration of a server."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from vllm_qllm.config.priority_class import (
    DEFAULT_CLASSES,
    MAX_CLASSES,
    PriorityClass,
    check_order,
    check_shares,
    level_of,
    parse_classes,
    usual_priority,
)
from vllm_qllm.config.rule import (
    INT64_MAX,
    ConfigError,
    check,
    check_rules,
    is_int,
    is_number,
    is_path,
    ruled,
    show,
)
from vllm_qllm.config.service_tiers import priority_of_tier, tier_priorities
from vllm_qllm.config.source import Source, read

CARRIER = "priority"  # the field of vLLM's additional_config that carries a configuration
YIELD_POINTS = ("expert", "layer", "none")
ORDERS = ("arrival", "program")
POLICY = re.compile(r"step|strict|[A-Za-z_][\w.]*:[A-Za-z_]\w*")
# 128 bytes each. What true stands for is about a minute of a busy GPU, and more of a CPU.
MIN_EVENTS, TIMELINE_EVENTS, MAX_EVENTS = 1024, 2**16, 2**20


def carried(vllm_config: Any) -> Mapping[str, Any] | None:
    """The configuration that an engine was given, as a mapping; None when no policy is on.

    Args:
        vllm_config: a ``VllmConfig``, whose ``additional_config`` carries it to every process.
    """
    extra = getattr(vllm_config, "additional_config", None)
    return extra.get(CARRIER) if isinstance(extra, dict) else None


@dataclass(frozen=True)
class PriorityConfig:
    """The whole configuration of a server.

    Attributes:
        policy: ``step``, ``strict`` or ``module:Class`` of one's own.
        classes: most urgent first.
        yield_points: where a step can be suspended: among the experts of a layer, too (``expert``),
            before every ``layer``, or ``none``.
        run_ahead: how many yield points the host may enqueue ahead of a GPU. An urgent request
            waits for these. A layer has three with ``expert`` and one with ``layer``.
        reserved_kv: fraction of the KV blocks that less urgent classes normally leave free.
        ride_slowdown: how many times slower decodes of less urgent requests may make an urgent
            step that they join (a mixed batch); 1: they never join.
        max_preemptions: how often one request may lose its KV blocks, or the step that it is in,
            to more urgent work.
        progress_cap: a request that has produced this fraction of its ``max_tokens`` loses its
            KV blocks after all others.
        park_fraction: of the KV blocks, what held-back requests may keep; requests beyond it are
            preempted.
        spill_bytes: host memory of each worker for offloaded KV of preempted requests; 0: it is
            computed again.
        spill_path: directory for a file that takes the place of this memory.
        program_ttl_ms: how long the KV of a finished turn is kept for the next turn of its program;
            0: it is not. Milliseconds.
        order: of requests of one priority: by their own ``arrival`` or by that of the first turn
            of their ``program``, at most a minute before their own.
        service_tiers: priority, or name of a class, for each ``service_tier`` of a request that
            names no priority; also names of your own, and ``*`` for all others.
        timeline: number of events of the timeline to keep; 0 for no timeline, true for
            65536.
        stall_limit_ms: ``/health`` fails when the engine has made no step for so long while
            requests wait; 0: it does not.
        tenants: path of the file that says who may use which class; null: everybody may.
        max_body_bytes: largest body of an HTTP request, whatever its class.
        max_body_items: texts, names, lists and objects in the JSON of a body, and every 32
            numbers, whatever its class; null: one for every 8 tokens of the model's longest
            sequence, at least 16384. ``/v1/responses`` takes a third of it, ``/v1/messages`` and
            ``/cohere/v2/chat`` half.
    """

    policy: str = ruled(
        "strict",
        lambda v: isinstance(v, str) and POLICY.fullmatch(v) is not None,
        "step, strict, or module:Class",
    )
    classes: tuple[PriorityClass, ...] = field(
        default=DEFAULT_CLASSES,
        metadata={"allowed": f"1 to {MAX_CLASSES} classes, most urgent first"},
    )
    yield_points: str = ruled("expert", lambda v: v in YIELD_POINTS, ", ".join(YIELD_POINTS))
    run_ahead: int = ruled(2, lambda v: is_int(v) and 1 <= v <= 1000, "an integer from 1 to 1000")
    reserved_kv: float = ruled(
        0.02, lambda v: is_number(v) and 0 <= v <= 0.5, "a fraction from 0 to 0.5"
    )
    ride_slowdown: float = ruled(
        1.25, lambda v: is_number(v) and 1 <= v <= 100, "a number from 1 to 100"
    )
    max_preemptions: int = ruled(
        8, lambda v: is_int(v) and 0 <= v <= 1000, "an integer from 0 to 1000"
    )
    progress_cap: float = ruled(
        0.9, lambda v: is_number(v) and 0 < v <= 1, "a fraction above 0, at most 1"
    )
    park_fraction: float = ruled(
        1.0, lambda v: is_number(v) and 0 <= v <= 1, "a fraction from 0 to 1"
    )
    spill_bytes: int = ruled(
        0, lambda v: is_int(v) and 0 <= v <= INT64_MAX, "a number of bytes, 0 for none"
    )
    spill_path: str | None = ruled(
        None, lambda v: v is None or is_path(v), "the path of a directory, or null for memory"
    )
    program_ttl_ms: float = ruled(
        0.0,
        lambda v: is_number(v) and 0 <= v <= 86_400_000,
        "a number of milliseconds from 0 to 86400000",
    )
    order: str = ruled("arrival", lambda v: v in ORDERS, ", ".join(ORDERS))
    service_tiers: Mapping[str, int] = field(
        default_factory=dict,
        metadata={"allowed": "an object of tier: 64-bit integer, or name of a class"},
    )
    timeline: int = ruled(
        0,
        lambda v: isinstance(v, bool) or (is_int(v) and (v == 0 or MIN_EVENTS <= v <= MAX_EVENTS)),
        f"true, false, or a number of events from {MIN_EVENTS} to {MAX_EVENTS}",
    )
    stall_limit_ms: float = ruled(
        0.0,
        lambda v: is_number(v) and 0 <= v <= 86_400_000,
        "a number of milliseconds from 0 to 86400000",
    )
    tenants: str | None = ruled(
        None, lambda v: v is None or is_path(v), "the path of a tenants file"
    )
    max_body_bytes: int = ruled(
        32 * 2**20,
        lambda v: is_int(v) and 1024 <= v <= 2**40,
        "a number of bytes from 1024 to 1099511627776",
    )
    max_body_items: int | None = ruled(
        None,
        lambda v: v is None or (is_int(v) and 1 <= v <= 2**40),
        "null, or a number from 1 to 1099511627776",
    )

    def __post_init__(self) -> None:
        check_order(self.classes)
        check_shares(self.classes)
        check_rules(self)
        settled: dict[str, Any] = {
            "service_tiers": tier_priorities(self.service_tiers, self.classes)
        }
        if isinstance(self.timeline, bool):
            settled["timeline"] = TIMELINE_EVENTS if self.timeline else 0
        for name in ("spill_path", "tenants"):
            path = getattr(self, name)
            if path is not None:  # other processes may work in other directories
                settled[name] = str(Path(path).absolute())
        for name, value in settled.items():
            object.__setattr__(self, name, value)

    def level(self, priority: int) -> int:
        """Index of the class that ``priority`` belongs to; 0 is the most urgent."""
        return level_of(self.classes, priority)

    def usual_priority(self, level: int) -> int:
        """The priority of a class's requests that name none."""
        return usual_priority(self.classes, level)

    def tier_priority(self, tier: Any) -> int | None:
        """The priority that a request's ``service_tier`` stands for, None for one not known."""
        return priority_of_tier(self.service_tiers, tier)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-serialisable form that :meth:`from_dict` accepts."""
        return asdict(self) | {"classes": [asdict(c) for c in self.classes]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PriorityConfig:
        """Build from a mapping.

        Raises:
            ConfigError: unknown, malformed or contradictory fields.
        """
        if not isinstance(data, Mapping):
            raise ConfigError(f"priority config: {show(data)} is not an object of field: value")
        known = {f.name for f in fields(cls)}
        values = dict(data)
        for name in values:
            check(name in known, "field", name, ", ".join(sorted(known)))
        if "classes" in values:
            values["classes"] = parse_classes(values["classes"])
        return cls(**values)

    @classmethod
    def load(cls, source: Source, policy: str | None) -> PriorityConfig:
        """Combine ``--priority-policy`` with ``--priority-config``.

        Args:
            source: None, a mapping, JSON text (starting with ``{``) or the path of a JSON file.
            policy: the policy named on the command line; it must not contradict the source.

        Raises:
            ConfigError: as :meth:`from_dict`; also an unreadable file or malformed JSON.
        """
        data = dict(read(source))
        if policy is not None:
            if "policy" in data and data["policy"] != policy:
                raise ConfigError(
                    f"priority config: policy is {show(data['policy'])} but --priority-policy is "
                    f"{show(policy)}; allowed: name it once, or the same twice"
                )
            data["policy"] = policy
        check(
            "policy" in data,
            "policy",
            None,
            "step, strict or module:Class, there or as --priority-policy",
        )
        return cls.from_dict(data)
