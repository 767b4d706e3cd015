# SPDX-License-Identifier: Apache-2.0
"""The KV of a finished turn waits for the next one, as long as nobody more urgent needs it."""

from __future__ import annotations

from typing import ClassVar

import pytest

from tests.engine.bare_scheduler import BE, BLOCK, LS, BareScheduler, Make
from vllm_qllm.policy import StrictPolicy, TurnView

TURN = list(range(48))


def finish(bare: BareScheduler, *names: str) -> None:
    """Run until these have ended."""
    for _ in range(100):
        if all(name in bare.finished for name in names):
            return
        bare.begin()
        bare.end()
    raise AssertionError(f"{names} do not end")


def fill(bare: BareScheduler, blocks: int, priority: int = BE) -> None:
    """A request that uses so many blocks comes and goes: what is not kept is forgotten."""
    name = f"fill{len(bare.requests)}"
    bare.add(name, priority, blocks * BLOCK - 1, out=1)
    finish(bare, name)


def computed(bare: BareScheduler, name: str, prompt: list[int], **more: str) -> int:
    """Prompt tokens that a next turn has to compute."""
    bare.add(name, BE, prompt, out=1, **more)
    total = 0
    while name not in bare.finished:
        total += bare.begin().get(name, 0)
        bare.end()
    return total


def test_without_a_program_it_is_forgotten(make: Make) -> None:
    bare = make(blocks=8, program_ttl_ms=1000.0)
    bare.add("first", BE, TURN, out=2)
    finish(bare, "first")
    fill(bare, 8)
    assert computed(bare, "next", TURN + [99] * 16) == 64


def test_the_next_turn_finds_it(make: Make) -> None:
    bare = make(blocks=8, program_ttl_ms=1000.0)
    bare.add("first", BE, TURN, out=2, program="p")
    finish(bare, "first")
    assert bare.scheduler.programs.kept_blocks == 3
    fill(bare, 5)
    assert computed(bare, "next", TURN + [99] * 16, program="p") == 16
    # The longer prefix has taken the place of the shorter one.
    assert bare.scheduler.programs.kept_blocks == 4
    assert bare.scheduler.reset_prefix_cache()
    assert bare.free == 8


def test_it_is_kept_no_longer_than_asked_for(make: Make) -> None:
    bare = make(blocks=8, program_ttl_ms=1000.0)
    bare.add("first", BE, TURN, out=2, program="p")
    finish(bare, "first")
    bare.clock.now += 0.9
    fill(bare, 5)
    assert bare.scheduler.programs.kept_blocks == 3
    bare.clock.now += 0.2
    fill(bare, 5)
    assert bare.scheduler.programs.kept_blocks == 0 and bare.free == 8


def test_urgent_requests_take_it_first(make: Make) -> None:
    bare = make(blocks=10, program_ttl_ms=1000.0)
    bare.add("first", BE, TURN, out=2, program="p")
    finish(bare, "first")
    bare.add("other", BE, 40, out=8)
    bare.begin()
    bare.end()
    bare.add("urgent", LS, 100, out=1)
    finish(bare, "urgent")
    assert bare.scheduler.programs.kept_blocks == 0
    assert bare.requests["other"].num_preemptions == 0, "nobody had to lose what is in use"


def test_its_own_class_waits_for_others_to_end_but_not_for_ever(make: Make) -> None:
    bare = make(blocks=8, program_ttl_ms=10_000.0)
    bare.add("first", BE, TURN, out=2, program="p")
    finish(bare, "first")
    bare.add("running", BE, 30, out=10)
    bare.begin()
    bare.end()
    bare.add("large", BE, 100, out=1)
    finish(bare, "running")
    assert "large" not in bare.finished and bare.scheduler.programs.kept_blocks == 3
    finish(bare, "large")
    assert bare.scheduler.programs.kept_blocks == 0


def test_a_turn_that_has_said_nothing_keeps_nothing(make: Make) -> None:
    bare = make(blocks=8, tokens=32, program_ttl_ms=1000.0)
    bare.add("first", BE, TURN, out=9, program="p")
    bare.begin()
    bare.end()
    bare.abort("first")
    assert bare.scheduler.programs.kept_blocks == 0 and bare.free == 8


def test_what_runs_is_not_preempted_for_what_is_kept(make: Make) -> None:
    bare = make(blocks=8, program_ttl_ms=1e6)
    bare.add("first", BE, TURN, out=2, program="p")
    finish(bare, "first")
    for name in ("a", "b"):
        bare.add(name, BE, 30, out=20)
    finish(bare, "a", "b")
    assert not bare.preemptions() and bare.scheduler.programs.kept_blocks == 0


def test_urgent_ones_do_not_wait_for_what_urgent_ones_left(make: Make) -> None:
    bare = make(blocks=10, program_ttl_ms=1e6)
    bare.add("first", LS, TURN, out=2, program="p")
    finish(bare, "first")
    bare.add("batch", BE, 40, out=200)
    for _ in range(2):
        bare.begin()
        bare.end()
    bare.add("urgent", LS, 120, out=1)
    finish(bare, "urgent")
    assert "batch" not in bare.finished


def test_programs_of_others_have_other_names(make: Make) -> None:
    bare = make(blocks=16, program_ttl_ms=1e6)
    for priority in (LS, BE):
        bare.add(f"turn{priority}", priority, [priority, *TURN], out=1, program="p")
        finish(bare, f"turn{priority}")
    assert bare.scheduler.programs.kept_blocks == 6, "one does not take the place of the other"


class Expecting(StrictPolicy):
    """Expects a next turn of long prompts, within so many seconds."""

    seconds: ClassVar[float] = 100.0

    def keep_turn(self, turn: TurnView) -> float:
        return self.seconds if turn.prompt_tokens >= len(TURN) else turn.ttl


EXPECTING = "tests.engine.test_programs:Expecting"


def test_a_policy_can_expect_a_next_turn(make: Make) -> None:
    bare = make(blocks=8, policy=EXPECTING)
    bare.add("first", BE, TURN, out=2)
    bare.add("short", BE, 16, out=2)
    finish(bare, "first", "short")
    programs = bare.scheduler.programs
    assert programs.kept_blocks == 3, "those of the short one are not"
    fill(bare, 3)
    assert computed(bare, "next", TURN + [99] * 16) == 16
    assert programs.kept_blocks == 4, "the longer one is there in place of the shorter one"
    bare.clock.now += 101
    fill(bare, 2)
    assert programs.kept_blocks == 0 and bare.free == 8


def test_a_policy_that_answers_no_time_is_named(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Expecting, "seconds", -1.0)
    bare = make(blocks=8, policy=EXPECTING)
    bare.add("first", BE, TURN, out=2)
    with pytest.raises(RuntimeError, match=r"Expecting' keeps a turn for -1\.0; allowed: seconds"):
        finish(bare, "first")


@pytest.mark.parametrize(("order", "first"), [("arrival", "other"), ("program", "second turn")])
def test_turns_are_ordered_by_their_program(make: Make, order: str, first: str) -> None:
    bare = make(blocks=64, seqs=1, order=order)
    bare.add("first turn", BE, 16, out=1, arrival=1.0, program="p")
    finish(bare, "first turn")
    bare.add("other", BE, 16, out=1, arrival=2.0, program="q")
    bare.add("second turn", BE, 16, out=1, arrival=3.0, program="p")
    scheduled = bare.begin()
    bare.end()
    assert list(scheduled) == [first]


def test_a_program_that_never_ends_is_not_first_for_ever(make: Make) -> None:
    bare = make(blocks=64, seqs=1, order="program")
    bare.add("turn 0", BE, 16, out=1, arrival=0.0, program="p")
    bare.add("other", BE, 16, out=1, arrival=10.0)
    served = []
    for second in range(0, 100, 5):  # the next turn comes before the last one is done
        bare.add(f"turn {second + 5}", BE, 16, out=1, arrival=second + 5.0, program="p")
        served += bare.begin()
        bare.end()
        if "other" in served:
            break
    # Turns that came within a minute of it may go first, and no later one.
    assert served[-1] == "other" and 10 < len(served) <= 15
