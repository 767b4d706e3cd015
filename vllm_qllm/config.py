# SPDX-License-Identifier: Apache-2.0
"""What an operator may configure: parsed and validated once, before any model is loaded.

Every problem raises :class:`ConfigError`, whose message names the field, the value and what is
allowed. No vLLM and no torch here: a configuration can be checked on any machine.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from vllm_qllm.metrics.names import BUDGET, SECONDS

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
MAX_CLASSES = 8
CARRIER = "priority"  # the field of vLLM's additional_config that carries a configuration
CHECKPOINTS = ("expert", "layer", "none")
# 128 bytes each. What true stands for is about a minute of a busy GPU, and more of a CPU.
MIN_EVENTS, TIMELINE_EVENTS, MAX_EVENTS = 1024, 2**16, 2**20
ORDERS = ("arrival", "program")
# A share of first tokens within a time is exact only at a bound of their histogram.
SLO_TTFT_MS = tuple(1000 * bound for bound in SECONDS)
SERVICE_TIERS = ("priority", "scale", "auto", "default", "flex")


class ConfigError(ValueError):
    """A configuration that cannot be used; the message says which field, value and why."""


def _check(condition: bool, name: str, value: Any, allowed: str) -> None:
    if not condition:
        raise ConfigError(f"priority config: {name} is {_show(value)}; allowed: {allowed}")


def _show(value: Any) -> str:
    """``repr(value)`` that is short and cannot fail, whatever JSON held."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, a very deep list
        return f"a {type(value).__name__} too large to show"
    return text if len(text) <= 200 else f"{text[:197]}..."


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object in which no field is given twice."""
    fields_given = dict(pairs)
    if len(fields_given) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        _check(False, "field", twice, "each field once")
    return fields_given


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value


def carried(vllm_config: Any) -> Mapping[str, Any] | None:
    """The configuration that an engine was given, as a mapping; None when no policy is on.

    Args:
        vllm_config: a ``VllmConfig``, whose ``additional_config`` carries it to every process.
    """
    extra = getattr(vllm_config, "additional_config", None)
    return extra.get(CARRIER) if isinstance(extra, dict) else None


@dataclass(frozen=True)
class PriorityClass:
    """A named group of priorities, ``(previous class's max_priority, max_priority]``.

    Attributes:
        name: label in metrics and messages.
        max_priority: largest priority that still belongs to the class; None for the last class.
        max_wait_ms: how long work of this class may be held back by more urgent work before it
            is given ``slice_ms`` of the machine (the bound on every suspension). Milliseconds.
        slice_ms: how long it then runs before it may be suspended again. Milliseconds; at least
            one checkpoint is always passed.
        slo_ttft_ms: objective for the time to first token, which the status page compares with
            what was; one of SLO_TTFT_MS; None for no objective. Milliseconds.
        slo_share: share of the requests that are to keep it.
    """

    name: str
    max_priority: int | None = None
    max_wait_ms: float = 2000.0
    slice_ms: float = 100.0
    slo_ttft_ms: float | None = None
    slo_share: float = 0.99

    def __post_init__(self) -> None:
        _check(
            isinstance(self.name, str)
            and re.fullmatch(r"[a-z][a-z0-9_]{0,62}", self.name) is not None
            and self.name != BUDGET,
            "classes[].name",
            self.name,
            "lower-case letters, digits and _, starting with a letter, at most 63 characters; "
            f"not {BUDGET}, which is a word of the metrics",
        )
        where = f"classes[{self.name}]"
        _check(
            self.max_priority is None
            or (_is_int(self.max_priority) and INT64_MIN <= self.max_priority < INT64_MAX),
            f"{where}.max_priority",
            self.max_priority,
            "a 64-bit integer, or null for the last class",
        )
        _check(
            _is_number(self.max_wait_ms) and 0 < self.max_wait_ms <= 3_600_000,
            f"{where}.max_wait_ms",
            self.max_wait_ms,
            "a number of milliseconds above 0, at most 3600000",
        )
        _check(
            _is_number(self.slice_ms) and 0 < self.slice_ms <= 60_000,
            f"{where}.slice_ms",
            self.slice_ms,
            "a number of milliseconds above 0, at most 60000",
        )
        _check(
            self.slo_ttft_ms is None
            or (_is_number(self.slo_ttft_ms) and self.slo_ttft_ms in SLO_TTFT_MS),
            f"{where}.slo_ttft_ms",
            self.slo_ttft_ms,
            "null, or a bound of the histogram of first tokens: "
            f"{', '.join(f'{bound:g}' for bound in SLO_TTFT_MS)}",
        )
        _check(
            _is_number(self.slo_share) and 0 < self.slo_share < 1,
            f"{where}.slo_share",
            self.slo_share,
            "a fraction above 0 and below 1",
        )


DEFAULT_CLASSES = (
    PriorityClass("latency_sensitive", max_priority=0),
    PriorityClass("best_effort"),
)


@dataclass(frozen=True)
class PriorityConfig:
    """The whole configuration of a server.

    Attributes:
        policy: ``step``, ``strict`` or ``module:Class`` of one's own.
        classes: most urgent first.
        checkpoints: where a step can be suspended: among the experts of a layer, too (``expert``),
            before every ``layer``, or ``none``.
        run_ahead: checkpoints by which the host may be ahead of a GPU in a step that can be
            suspended; what lies between is what an urgent request may have to wait for. A layer
            has three with ``expert`` and one with ``layer``.
        reserved_kv: fraction of the KV blocks that only the most urgent class may use.
        ride_slowdown: a decode step of urgent requests takes decodes of less urgent ones along
            while that is expected to make it at most this many times slower; 1 means never.
        max_preemptions: how often one request may lose its KV blocks to more urgent work.
        progress_cap: a request that has produced this fraction of its ``max_tokens`` loses its
            KV blocks after all others.
        park_fraction: of the KV blocks, that held-back requests may keep; those beyond it are
            preempted.
        spill_bytes: host memory of each worker for the KV of preempted requests; 0 computes it
            again.
        spill_path: directory for a file that holds it instead of memory.
        program_ttl_ms: how long the KV of a finished turn is kept for the next turn of its program;
            0: it is not. Milliseconds.
        order: of requests of one priority: by their own ``arrival`` or by that of the first turn
            of their ``program``.
        service_tiers: priority for each ``service_tier`` of a request that names no priority.
        timeline: number of events of the timeline to keep; 0 for no timeline, True for
            TIMELINE_EVENTS.
        tenants: path of the file that says who may use which class; None: everybody may.
    """

    policy: str = "strict"
    classes: tuple[PriorityClass, ...] = DEFAULT_CLASSES
    checkpoints: str = "expert"
    run_ahead: int = 2
    reserved_kv: float = 0.02
    ride_slowdown: float = 1.25
    max_preemptions: int = 8
    progress_cap: float = 0.9
    park_fraction: float = 1.0
    spill_bytes: int = 0
    spill_path: str | None = None
    program_ttl_ms: float = 0.0
    order: str = "arrival"
    service_tiers: Mapping[str, int] = field(default_factory=dict)
    timeline: int = 0
    tenants: str | None = None

    def __post_init__(self) -> None:
        _check(
            isinstance(self.policy, str)
            and (
                self.policy in ("step", "strict")
                or re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", self.policy) is not None
            ),
            "policy",
            self.policy,
            "step, strict, or module:Class",
        )
        self._check_classes()
        _check(
            self.checkpoints in CHECKPOINTS, "checkpoints", self.checkpoints, ", ".join(CHECKPOINTS)
        )
        _check(
            _is_int(self.run_ahead) and 1 <= self.run_ahead <= 1000,
            "run_ahead",
            self.run_ahead,
            "an integer from 1 to 1000",
        )
        _check(
            _is_number(self.reserved_kv) and 0 <= self.reserved_kv <= 0.5,
            "reserved_kv",
            self.reserved_kv,
            "a fraction from 0 to 0.5",
        )
        _check(
            _is_number(self.ride_slowdown) and 1 <= self.ride_slowdown <= 100,
            "ride_slowdown",
            self.ride_slowdown,
            "a number from 1 to 100",
        )
        _check(
            _is_int(self.max_preemptions) and 0 <= self.max_preemptions <= 1000,
            "max_preemptions",
            self.max_preemptions,
            "an integer from 0 to 1000",
        )
        _check(
            _is_number(self.progress_cap) and 0 < self.progress_cap <= 1,
            "progress_cap",
            self.progress_cap,
            "a fraction above 0, at most 1",
        )
        _check(
            _is_number(self.park_fraction) and 0 <= self.park_fraction <= 1,
            "park_fraction",
            self.park_fraction,
            "a fraction from 0 to 1",
        )
        _check(
            _is_int(self.spill_bytes) and 0 <= self.spill_bytes <= INT64_MAX,
            "spill_bytes",
            self.spill_bytes,
            "a number of bytes, 0 for none",
        )
        _check(
            self.spill_path is None
            or (
                isinstance(self.spill_path, str)
                and self.spill_path != ""
                and "\0" not in self.spill_path
            ),
            "spill_path",
            self.spill_path,
            "the path of a directory, or null for memory",
        )
        if self.spill_path is not None:
            object.__setattr__(self, "spill_path", str(Path(self.spill_path).absolute()))
        _check(
            _is_number(self.program_ttl_ms) and 0 <= self.program_ttl_ms <= 86_400_000,
            "program_ttl_ms",
            self.program_ttl_ms,
            "a number of milliseconds from 0 to 86400000",
        )
        _check(self.order in ORDERS, "order", self.order, ", ".join(ORDERS))
        object.__setattr__(self, "service_tiers", self._tiers(self.service_tiers))
        object.__setattr__(self, "timeline", self._events(self.timeline))
        if self.tenants is not None:
            _check(
                isinstance(self.tenants, str) and self.tenants != "" and "\0" not in self.tenants,
                "tenants",
                self.tenants,
                "the path of a tenants file",
            )
            # Other processes may work in other directories.
            object.__setattr__(self, "tenants", str(Path(self.tenants).absolute()))

    def _check_classes(self) -> None:
        classes = self.classes
        _check(
            1 <= len(classes) <= MAX_CLASSES, "classes", len(classes), f"1 to {MAX_CLASSES} classes"
        )
        names = [c.name for c in classes]
        _check(len(set(names)) == len(names), "classes[].name", names, "names that differ")
        for earlier, later in itertools.pairwise(classes):
            _check(
                earlier.max_priority is not None,
                f"classes[{earlier.name}].max_priority",
                None,
                "an integer: only the last class may leave it out",
            )
            _check(
                later.max_priority is None or later.max_priority > earlier.max_priority,  # type: ignore[operator]
                f"classes[{later.name}].max_priority",
                later.max_priority,
                f"above {earlier.max_priority}, the bound of {earlier.name} (most urgent first)",
            )
        _check(
            classes[-1].max_priority is None,
            f"classes[{classes[-1].name}].max_priority",
            classes[-1].max_priority,
            "null: the last class takes all remaining priorities",
        )

    @staticmethod
    def _events(given: Any) -> int:
        if isinstance(given, bool):
            return TIMELINE_EVENTS if given else 0
        _check(
            _is_int(given) and (given == 0 or MIN_EVENTS <= given <= MAX_EVENTS),
            "timeline",
            given,
            f"true, false, or a number of events from {MIN_EVENTS} to {MAX_EVENTS}",
        )
        return int(given)

    def _tiers(self, given: Mapping[str, int]) -> dict[str, int]:
        _check(isinstance(given, Mapping), "service_tiers", given, "an object of tier: priority")
        last = len(self.classes) - 1
        # The least urgent class begins just above the bound of the one before it.
        flex = 0 if last == 0 else max(1, self.classes[last - 1].max_priority + 1)  # type: ignore[operator]
        urgent = 0 if last == 0 else self.classes[0].max_priority or 0
        tiers = {
            "priority": min(-2, urgent),
            "scale": min(-1, urgent),
            "auto": 0,
            "default": 0,
            "flex": flex,
        }
        for tier, priority in given.items():
            _check(tier in SERVICE_TIERS, "service_tiers", tier, ", ".join(SERVICE_TIERS))
            _check(
                _is_int(priority) and INT64_MIN <= priority <= INT64_MAX,
                f"service_tiers.{tier}",
                priority,
                "a 64-bit integer",
            )
            tiers[tier] = priority
        return tiers

    def rank(self, priority: int) -> int:
        """Index of the class that ``priority`` belongs to; 0 is the most urgent."""
        for rank, cls in enumerate(self.classes):
            if cls.max_priority is None or priority <= cls.max_priority:
                return rank
        raise AssertionError("the last class has no bound")

    def usual_priority(self, rank: int) -> int:
        """The priority of a class's requests that name none.

        That is 0 in its own class; elsewhere the most urgent of the class or, in one that has no
        most urgent one, the least urgent.
        """
        if self.rank(0) == rank:
            return 0
        last = self.classes[rank].max_priority if rank == 0 else None
        return last if last is not None else self.classes[rank - 1].max_priority + 1  # type: ignore[operator]

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
            raise ConfigError(f"priority config: {_show(data)} is not an object of field: value")
        known = {f.name for f in fields(cls)}
        values = dict(data)
        for name in values:
            _check(name in known, "field", name, ", ".join(sorted(known)))
        if "classes" in values:
            values["classes"] = tuple(_class(entry) for entry in _entries(values["classes"]))
        return cls(**values)

    @classmethod
    def load(
        cls, source: str | Path | Mapping[str, Any] | None, policy: str | None
    ) -> PriorityConfig:
        """Combine ``--priority-policy`` with ``--priority-config``.

        Args:
            source: None, a mapping, JSON text (starting with ``{``) or the path of a JSON file.
            policy: the policy named on the command line; it must not contradict the source.

        Raises:
            ConfigError: as :meth:`from_dict`; also an unreadable file or malformed JSON.
        """
        data = dict(_read(source))
        if policy is not None:
            if "policy" in data and data["policy"] != policy:
                raise ConfigError(
                    f"priority config: policy is {_show(data['policy'])} but --priority-policy is "
                    f"{_show(policy)}; allowed: name it once, or the same twice"
                )
            data["policy"] = policy
        _check(
            "policy" in data,
            "policy",
            None,
            "step, strict or module:Class, there or as --priority-policy",
        )
        return cls.from_dict(data)


def _entries(value: Any) -> Sequence[Any]:
    _check(
        isinstance(value, (list, tuple)), "classes", value, "a list of classes, most urgent first"
    )
    return value


def _class(entry: Any) -> PriorityClass:
    if isinstance(entry, PriorityClass):
        return entry
    _check(isinstance(entry, Mapping), "classes[]", entry, "an object with name and max_priority")
    known = {f.name for f in fields(PriorityClass)}
    for name in entry:
        _check(name in known, "classes[] field", name, ", ".join(sorted(known)))
    _check("name" in entry, "classes[]", dict(entry), "an object with a name")
    return PriorityClass(**entry)


def _read(source: str | Path | Mapping[str, Any] | None) -> Mapping[str, Any]:
    if source is None:
        return {}
    if isinstance(source, Mapping):
        return source
    text = str(source)
    origin = "--priority-config"
    if not text.lstrip().startswith("{"):
        origin = text
        try:
            text = Path(text).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"priority config: cannot read {_show(origin)} ({error}); allowed: JSON text that "
                "starts with '{', or the path of a JSON file"
            ) from error
    try:
        data = json.loads(text, object_pairs_hook=_once)
    except ConfigError:
        raise
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"priority config: {origin} is not valid JSON: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(
            f"priority config: {origin} holds {type(data).__name__}; allowed: an object"
        )
    return data
