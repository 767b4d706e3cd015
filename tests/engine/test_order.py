# SPDX-License-Identifier: Apache-2.0
"""Who comes first: by class, then by priority and arrival, as vLLM's own priority policy has it.

With the default classes requests of priority 0 and below are one class, all others the second. A
step is led by one class, so what vLLM puts into one step, sorted, comes in one step after another.
"""

from __future__ import annotations

import itertools
from typing import Any

from vllm.v1.request import RequestStatus

from tests.engine.bare_scheduler import BareScheduler, Make
from tests.engine.test_outputs import finish, result

# (priority, arrival) of each, as they are added.
Asked = list[tuple[int, float]]


def added(bare: BareScheduler, asked: Asked, out: int = 2) -> list[str]:
    """Add them; their names in the order in which they are to be served."""
    for number, (priority, arrival) in enumerate(asked):
        bare.add(f"r{number}", priority, 16, out=out, arrival=arrival)
    # A request that comes first of those that are equal is added first.
    return [f"r{n}" for n in sorted(range(len(asked)), key=lambda n: (*asked[n], n))]


def admitted(bare: BareScheduler) -> list[list[str]]:
    """Who is in each step that admits somebody, of those that it admits; until all have ended."""
    steps, known = [], set[str]()
    for _ in range(200):
        if not bare.scheduler.requests:
            return steps
        if new := [name for name in bare.begin() if name not in known]:
            steps.append(new)
            known |= set(new)
        bare.end()
    raise AssertionError(f"{bare.scheduler.requests.keys()} do not end")


def test_what_fits_into_one_step_comes_sorted(make: Make) -> None:
    bare = make(seqs=8, tokens=256)
    added(bare, [(2, 1.0), (0, 2.0), (1, 3.0)])
    # The class of priority 0 for itself; the other one begins when that has ended.
    assert admitted(bare) == [["r1"], ["r2", "r0"]]


def test_equal_priorities_come_by_arrival(make: Make) -> None:
    """Whatever the order in which they are added."""
    asked: Asked = [(1, 4.0), (0, 3.0), (1, 2.0), (0, 1.0), (7, 0.0), (-3, 9.0)]
    for order in itertools.permutations(range(len(asked))):
        if order[0] > 1:
            continue  # a third of them is enough
        bare = make(seqs=8, tokens=256)
        expected = added(bare, [asked[n] for n in order])
        assert list(itertools.chain(*admitted(bare))) == expected, order


def test_the_first_ones_have_the_slots(make: Make) -> None:
    for asked in ([(2, 1.0), (1, 2.0), (0, 3.0)], [(9, 1.0), (6, 2.0), (7, 3.0), (8, 4.0)]):
        bare = make(seqs=2, tokens=256)
        expected = added(bare, asked)
        steps = admitted(bare)
        assert list(itertools.chain(*steps)) == expected
        assert max(map(len, steps)) <= 2
    # Those that have a slot keep it, within one class: a better one that comes later waits.
    bare = make(seqs=2, tokens=256)
    added(bare, [(6, 1.0), (7, 2.0)], out=4)
    bare.begin()
    bare.end()
    bare.add("late", 5, 16, out=1)
    assert admitted(bare) == [["r0", "r1"], ["late"]]


def test_one_that_waits_for_its_token_can_lose_its_blocks(make: Make) -> None:
    """It has nothing to compute in the step that takes them, which goes on with who needs them."""

    def configure(config: Any) -> None:
        config.scheduler_config.long_prefill_token_threshold = 32
        config.scheduler_config.scheduler_reserve_full_isl = False

    bare = make(blocks=6, tokens=64, configure=configure)
    scheduler = bare.scheduler
    skipped = bare.add("skipped", 9, 64, out=3, arrival=1.0)
    first = scheduler.schedule()
    other = bare.add("other", 5, 80, out=3, arrival=2.0)
    second, third = scheduler.schedule(), scheduler.schedule()
    assert scheduler.by_class.level(skipped) == scheduler.by_class.level(other)
    made = [output.num_scheduled_tokens for output in (first, second, third)]
    assert made == [{"skipped": 64}, {"other": 32}, {"other": 32}]
    assert skipped.status == RequestStatus.PREEMPTED and third.preempted_req_ids == {"skipped"}
    assert scheduler.running == [other]
    for output, tokens in ((first, [7]), (second, []), (third, [])):
        scheduler.update_from_output(output, result(output, *tokens))
    assert not scheduler.flight
    finish(bare)
    assert skipped.num_output_tokens == other.num_output_tokens == 3
    bare.assert_idle()
