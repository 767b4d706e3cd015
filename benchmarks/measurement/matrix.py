# SPDX-License-Identifier: Apache-2.0
"""What is to be measured: cells of (scenario, variant, system, round), in order, and which of them
have been measured already."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import systems
from benchmarks.load.drive import Times
from benchmarks.load.streams import Replay
from benchmarks.load.traces import Traces, read
from benchmarks.measurement.conditions import ROOT
from benchmarks.measurement.equality import Sample
from benchmarks.record import record
from benchmarks.record.record import Record
from benchmarks.scenarios.scenario import COMMON, Scenario, Variant
from benchmarks.systems import System

TRACES = ROOT / "benchmarks" / "traces"


@dataclass(frozen=True)
class Setup:
    """What is the same for every cell.

    Attributes:
        model: its folder, whose name is the model's.
        common: arguments of every server, beside the system's.
        times: in place of every scenario's own.
        url: of a server that runs already, in place of one of our own.
        timelines: folder for the last seconds of each window of our systems, for pictures.
    """

    model: Path
    common: tuple[str, ...] = COMMON
    seed: int = 0
    times: Times | None = None
    files: Traces = field(default_factory=lambda: Traces(TRACES))
    sample: Sample = field(default_factory=Sample)
    url: str | None = None
    timelines: Path | None = None


@dataclass(frozen=True)
class Cell:
    """One run."""

    scenario: Scenario
    variant: Variant
    name: str
    system: System
    round: int

    def __str__(self) -> str:
        point = self.variant.point
        at = f" at {point.value:g} {point.name}" if point else ""
        return f"{self.scenario.name}{at}, {self.name}, round {self.round + 1}"

    def times(self, setup: Setup) -> Times:
        """How long it takes."""
        return setup.times or self.scenario.times

    def arguments(self, setup: Setup) -> tuple[str, ...]:
        """Of its server."""
        return (*setup.common, *self.scenario.arguments, *self.system.arguments)

    def check(self, setup: Setup) -> None:
        """Read the traces that it replays. Raises BadTrace."""
        for stream in self.variant.streams:
            if isinstance(stream, Replay):
                read(setup.files.path(stream.kind, stream.trace))

    def plan(self, setup: Setup) -> dict[str, Any]:
        """What is done, as data."""
        return {
            "question": self.scenario.question,
            "model": setup.model.name,
            "arguments": list(self.arguments(setup)),
            "url": setup.url,
            "kinds": list(self.system.kinds),
            "open": self.variant.open_kinds,
            "streams": self.variant.plain(),
            "traces": trace_digests(self.variant, setup.files),
            "times": msgspec.to_builtins(self.times(setup)),
            "sample": msgspec.to_builtins(setup.sample),
        }

    def key(self, setup: Setup, facts: dict[str, Any]) -> str:
        """Equal for runs that need not be repeated: same load, system, machine, source, seed."""
        same = {k: v for k, v in facts.items() if k != "commit"}
        what = [self.plan(setup), same, setup.seed, self.name, self.system.priorities]
        text = msgspec.json.encode(what, order="deterministic")
        return hashlib.sha256(text).hexdigest()[:16]

    def blank(self, setup: Setup, facts: dict[str, Any], **more: Any) -> Record:
        """Its record, as far as it is known before the run."""
        return Record(
            scenario=self.scenario.name,
            system=self.name,
            round=self.round,
            key=self.key(setup, facts),
            about=self.system.about,
            point=self.variant.point,
            seed=setup.seed,
            conditions=facts,
            plan=self.plan(setup),
            decode_slo=self.scenario.decode_slo,
            **more,
        )


def trace_digests(variant: Variant, files: Traces) -> dict[str, str]:
    """Name and content of the traces that a variant replays."""
    found = {}
    for stream in variant.streams:
        if isinstance(stream, Replay):
            path = files.path(stream.kind, stream.trace)
            content = path.read_bytes() if path.is_file() else b""
            found[path.name] = hashlib.sha256(content).hexdigest()[:16] if content else "missing"
    return found


def cells(
    scenarios: Sequence[Scenario],
    names: Sequence[str] | None = None,
    rounds: int = 1,
    *,
    share: int = 1,
    quick: bool = False,
) -> list[Cell]:
    """All runs: in each round, every scenario under each of its systems in turn.

    So drift of the machine's speed cancels over rounds. A system's variants follow each other and
    share its server, as do systems with the same arguments.

    Args:
        names: systems in place of the scenarios' own.
        share: so many scenarios take turns under each system, so that one start of a server does
            for all of them. The systems of one scenario are further apart in time then.
        quick: only a scenario's quick variants, and all scenarios share.
    """
    found = []
    for round_ in range(rounds):
        for group in batched(scenarios, len(scenarios) if quick else share):
            runs = [
                Cell(scenario, variant, name, systems.find(name), round_)
                for scenario in group
                for name in names or scenario.systems
                for variant in scenario.tried(quick)
            ]
            if len(group) > 1:
                first = [c.system.arguments for c in runs].index
                runs.sort(key=lambda c: (first(c.system.arguments), c.scenario.arguments))
            found += runs
    return found


def batched(scenarios: Sequence[Scenario], size: int) -> list[Sequence[Scenario]]:
    """Them in order, so many at a time."""
    return [scenarios[i : i + size] for i in range(0, len(scenarios), size)]


def finished(path: Path, key: str) -> bool:
    """Whether this file holds a good run with this key. One that cannot be read does not."""
    if not path.exists():
        return False
    try:
        found = record.load(path)
    except record.BadRecord:
        return False
    return found.status == "ok" and found.key == key
