# SPDX-License-Identifier: Apache-2.0
"""The reserve keeps nobody out for ever: who fits beside the urgent work is let in, in its time."""

from __future__ import annotations

import math
import random
from typing import Any

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from tests.engine.bare_scheduler import BareScheduler, Clock, Make

# A step, the longest wait and the slice of each less urgent class; seconds.
STEP, WAIT, SLICE = 0.01, 0.09, 0.03
# How often a request may lose its blocks before it keeps them.
LOSSES = 2


def classes(number: int) -> list[dict[str, Any]]:
    """So many, of which the priority is the level."""
    times = {"max_wait_ms": 1000 * WAIT, "slice_ms": 1000 * SLICE}
    named: list[dict[str, Any]] = [{"name": f"c{n}", "max_priority": n} for n in range(number - 1)]
    return [named[0], *(c | times for c in named[1:]), {"name": "last", **times}]


class Load:
    """Urgent work that never ends, and a few requests of the least urgent class.

    Urgent requests overlap: one comes when another is about to end, so that the others are never
    alone. What they leave free is room for each of the others, but often not beside the reserve.

    Args:
        bare: the scheduler.
        rng: draws the sizes.
        level: of the less urgent requests; all that are more urgent never end.
        slots: urgent requests at a time; twice as many while they take turns.
        each: blocks that one of them holds at most.
    """

    def __init__(
        self, bare: BareScheduler, rng: random.Random, level: int, slots: int, each: int
    ) -> None:
        self.bare, self._rng, self._level = bare, rng, level
        self._slots, self._each = slots, each
        self._number = 0
        self.late: dict[str, float] = {}
        self.needed = self.steps = 0

    def ask(self, room: int, tokens: int) -> None:
        """A less urgent request of at most ``room`` blocks comes."""
        most = room * self.bare.size
        output = self._rng.randint(1, min(6, most - 1))
        prompt = self._rng.choice([most - output, self._rng.randint(1, most - output)])
        name = f"late{len(self.late)}"
        self.bare.add(name, self._level, prompt, out=output, arrival=self.bare.clock.now)
        self.late[name] = self.bare.clock.now
        self.needed = max(self.needed, -(-(prompt + output) // self.bare.size))
        self.steps += -(-prompt // tokens) + output

    def press(self) -> None:
        """Keep the urgent classes at work."""
        urgent = [r for name, r in self.bare.scheduler.requests.items() if name not in self.late]
        lasting = [r for r in urgent if r.max_tokens - r.num_output_tokens > 1]
        for _ in range(self._slots - len(lasting)):
            total = self._rng.randint(3, self._each * self.bare.size)
            output = self._rng.randint(2, min(6, total - 1))
            self._number += 1
            priority = self._rng.randrange(self._level)
            self.bare.add(
                f"urgent{self._number}",
                priority,
                total - output,
                out=output,
                arrival=self.bare.clock.now,
            )


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    seed=st.integers(0, 2**32),
    size=st.sampled_from([1, 4, 16]),
    blocks=st.integers(14, 40),
    reserved=st.sampled_from([0.05, 0.2, 0.4, 0.5]),
    tokens=st.integers(8, 64),
    number=st.integers(2, 4),
    level=st.integers(1, 3),
    slots=st.integers(1, 2),
    requests=st.integers(1, 4),
)
def test_what_fits_beside_urgent_work_is_let_in(
    make: Make,
    clock: Clock,
    seed: int,
    size: int,
    blocks: int,
    reserved: float,
    tokens: int,
    number: int,
    level: int,
    slots: int,
    requests: int,
) -> None:
    """In so many slices as all of them take; without the reserve none would take longer."""
    rng, clock.now = random.Random(seed), 1000.0
    level = min(level, number - 1)
    least = 3 if size == 1 else 1
    each = rng.randint(least, max(least, (blocks - 2) // (2 * slots)))
    room = blocks - 2 * slots * each
    bare = make(
        blocks=blocks,
        seqs=2 * slots + 1,
        tokens=tokens,
        size=size,
        classes=classes(number),
        reserved_kv=reserved,
        max_preemptions=LOSSES,
    )
    load = Load(bare, rng, level, slots, each)
    for _ in range(requests):
        load.ask(room, tokens)
    kept = int(reserved * (blocks + 1))
    event("needs the reserve" if load.needed + kept > room else "fits beside it")
    # Each of their steps in a slice of its own, over again for each loss, and for every class.
    slices = load.steps * (1 + LOSSES) * level + requests
    longest = slices * (WAIT + number * (SLICE + 2 * STEP))
    admitted: set[str] = set()
    for _ in range(math.ceil(longest / STEP)):
        load.press()
        scheduled = bare.begin()
        bare.end(took=STEP)
        admitted |= scheduled.keys() & load.late.keys()
        if load.late.keys() <= bare.finished.keys():
            break
    assert admitted == load.late.keys(), f"waited for {longest:.2f} s"
    assert load.late.keys() <= bare.finished.keys(), f"do not end within {longest:.2f} s"
