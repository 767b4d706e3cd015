# SPDX-License-Identifier: Apache-2.0
"""Result files put in order: by scenario, then system and point, with all rounds together."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.record.record import Point, Record
from benchmarks.record.summary import decode_iteration, spread
from benchmarks.systems import SYSTEMS

ALONE = "ls-alone"

ORDER = {name: place for place, name in enumerate(SYSTEMS)}

Reader = Callable[[Record], float | None]


@dataclass
class Group:
    """All rounds of one system at one point."""

    scenario: str
    system: str
    point: Point | None
    records: list[Record] = field(default_factory=list)

    @property
    def good(self) -> list[Record]:
        """Those that have something to say."""
        return [r for r in self.records if r.status == "ok"]


class Results:
    """Records in groups; points ascending, and systems in the order of their list."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._groups: dict[tuple[str, str, float | None], Group] = {}
        for record in records:
            value = None if record.point is None else record.point.value
            key = (record.scenario, record.system, value)
            fresh = Group(record.scenario, record.system, record.point)
            self._groups.setdefault(key, fresh).records.append(record)

    @property
    def scenarios(self) -> list[str]:
        return list(dict.fromkeys(group.scenario for group in self._groups.values()))

    def groups(self, scenario: str) -> list[Group]:
        """Of one scenario; by point first."""
        found = [g for g in self._groups.values() if g.scenario == scenario]
        return sorted(found, key=lambda g: (0.0 if g.point is None else g.point.value, position(g)))

    def systems(self, scenario: str) -> list[str]:
        return list(dict.fromkeys(g.system for g in self.groups(scenario)))

    def get(self, scenario: str, system: str, point: Point | None) -> Group | None:
        """One group, if it was measured."""
        group = self._groups.get((scenario, system, None if point is None else point.value))
        return group if group is not None and group.good else None

    def alone(self, group: Group) -> Group | None:
        """LS alone at the same point."""
        return self.get(group.scenario, ALONE, group.point)

    def ttft_slo(self, scenario: str) -> float | None:
        """Seconds to the first LS token that a scenario promises; None where it cannot be known.

        Where it is a number of decode iterations, one is what it takes LS alone at the lowest load.
        """
        for group in self.groups(scenario):
            some = group.records[0]
            if some.ttft_slo is not None:
                return some.ttft_slo
            if group.system == ALONE and some.decode_slo is not None:
                times = [t for t in map(decode_iteration, group.good) if t is not None]
                p50 = spread(times).p50
                if p50 is not None:
                    return some.decode_slo * p50
        return None


def position(group: Group) -> int:
    """Place of its system in the list; one that is not there comes last."""
    return ORDER.get(group.system, len(ORDER))


def middle(group: Group, read: Reader) -> float | None:
    """The median over rounds of what ``read`` finds; None where it finds nothing."""
    values = [value for value in map(read, group.good) if value is not None]
    return statistics.median(values) if values else None
