# SPDX-License-Identifier: Apache-2.0
"""Who is picked, against counting everything anew each time."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from vllm_qllm.capacity.router import router


@settings(max_examples=60)
@given(
    replicas=st.integers(1, 6),
    events=st.lists(st.tuples(st.booleans(), st.integers(0, 2)), max_size=120),
)
def test_the_least_loaded_is_picked(replicas: int, events: list[tuple[bool, int]]) -> None:
    counts = [[0, 0, 0] for _ in range(replicas)]
    routers = {name: router(name, replicas, 3) for name in ("least_outstanding", "class_aware")}
    for comes, level in events:
        picked = routers["least_outstanding"].pick(level)
        assert sum(counts[picked]) == min(map(sum, counts))
        aware = routers["class_aware"].pick(level)
        keys = [(sum(c[: level + 1]), sum(c)) for c in counts]
        assert keys[aware] == min(keys)
        busy = next((i for i, c in enumerate(counts) if c[level]), None)
        if comes:
            counts[aware][level] += 1
            for each in routers.values():
                each.came(aware, level)
        elif busy is not None:
            counts[busy][level] -= 1
            for each in routers.values():
                each.went(busy, level)


def test_round_robin_takes_turns() -> None:
    turn = router("round_robin", 3, 2)
    assert [turn.pick(0) for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]
