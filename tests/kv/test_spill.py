# SPDX-License-Identifier: Apache-2.0
"""Which blocks go to which slots, and that every slot comes back."""

from __future__ import annotations

import random

from vllm import SamplingParams
from vllm.v1.request import Request

from vllm_qllm.kv.copies import CopyReport
from vllm_qllm.kv.host_slots import HostSlots
from vllm_qllm.kv.spill import Spill

BLOCK = 16


def request(name: str, computed: int, **sampling: int) -> Request:
    made = Request(name, list(range(1000)), SamplingParams(max_tokens=4, **sampling), None)
    made.num_computed_tokens = computed
    return made


def spill(slots: int = 8) -> Spill:
    return Spill(slots, BLOCK, block_bytes=100)


def test_a_spilled_request_comes_back_from_its_slots() -> None:
    host = spill()
    assert host.preempt(request("a", 40), [7, 8, 9])
    assert host.take_copies().out == [(7, 0), (8, 1), (9, 2)]
    assert host.tokens("a") == 40 and host.held() == {"a": 300}
    # Its first block is still cached: the other two come from the host.
    host.admit("a", [7, 4, 5, 6], start=16, tokens=24)
    assert host.take_copies().back == [(1, 4), (2, 5)]
    assert host.tokens("a") == 0
    # Full blocks stay copied; the half-filled one has to be copied anew.
    assert host.preempt(request("a", 50), [7, 4, 5, 6])
    assert [block for block, _ in host.take_copies().out] == [5, 6]
    host.forget("a")
    host.take_copies()
    assert host.slots.free == 8


def test_blocks_are_copied_ahead_when_they_are_full() -> None:
    host = spill()
    running = request("a", 40)
    assert host.copy_ahead(running, [7, 8, 9], limit=1) == 1
    assert host.copy_ahead(running, [7, 8, 9], limit=9) == 1, "the third is not full"
    assert host.take_copies().out == [(7, 0), (8, 1)]
    assert host.tokens("a") == 0, "it holds its blocks itself"
    assert host.preempt(running, [7, 8, 9])
    assert host.take_copies().out == [(9, 2)], "little is left to copy when they are taken"
    assert host.tokens("a") == 40


def test_what_was_copied_ahead_makes_room() -> None:
    host = spill(slots=4)
    host.copy_ahead(request("ahead", 48), [1, 2, 3], limit=3)
    assert host.preempt(request("a", 48), [4, 5, 6])
    assert host.tokens("a") == 48 and host.held()["ahead"] == 0


def test_with_too_little_room_the_beginning_is_kept() -> None:
    host = spill(slots=2)
    assert host.preempt(request("a", 48), [4, 5, 6])
    assert host.tokens("a") == 32
    assert not host.preempt(request("b", 48), [7, 8, 9]), "what others wait for is not given up"
    assert host.tokens("a") == 32 and host.tokens("b") == 0


def test_the_cheaper_way_is_taken() -> None:
    host = spill()
    host.costs.copied(CopyReport(out=10, out_seconds=10.0, back=10, back_seconds=10.0))
    host.costs.computed(1000, 1.0)
    assert not host.preempt(request("a", 48), [1, 2, 3]), "6 s to copy, 0.05 s to compute"
    assert host.take_copies().out == []
    host.costs.computed(1000, 1e6)
    assert host.preempt(request("a", 48), [1, 2, 3])
    assert host.restore_seconds("a", 48) == 3.0, "copied out already"


def test_a_prompt_whose_log_probabilities_are_asked_for_is_computed_again() -> None:
    host = spill()
    assert not host.preempt(request("a", 48, prompt_logprobs=1), [1, 2, 3])
    assert not host.preempt(request("b", 0), [])
    assert host.held() == {}


def test_what_fails_to_come_back_is_forgotten() -> None:
    host = spill()
    host.preempt(request("a", 48), [1, 2, 3])
    host.preempt(request("b", 16), [4])
    host.admit("a", [5, 6, 7], 0, 48)
    host.admit("b", [8], 0, 16)
    host.take_copies()
    host.completed(CopyReport(back=4, back_seconds=0.1, errors=1), {6})
    assert set(host.held()) == {"b"}, "its slots hold what could not be read"
    host.restored({"a", "b"})
    host.completed(None, {8})
    assert set(host.held()) == {"b"}, "a block of a completed step is somebody else's by now"


def test_a_slot_is_not_overwritten_before_it_is_read() -> None:
    slots = HostSlots(2)
    first, second = slots.take(), slots.take()
    assert (first, second, slots.take()) == (0, 1, None)
    slots.give_back([0])
    assert slots.take() is None, "the step that is put together reads it"
    slots.step_is_complete()
    assert slots.take() == 0


def test_slots_add_up_whatever_happens() -> None:
    rng = random.Random(0)
    host = spill(slots=20)
    for _ in range(2000):
        name = rng.choice("abcdef")
        held = [rng.randrange(100) for _ in range(7)]
        match rng.randrange(5):
            case 0 if not host.tokens(name):
                host.preempt(request(name, rng.randrange(1, 112)), held)
            case 1:
                start = BLOCK * rng.randrange(7)
                host.admit(name, held, start, max(0, host.tokens(name) - start))
            case 2 if not host.tokens(name):
                host.copy_ahead(request(name, rng.randrange(112)), held, rng.randrange(5))
            case 3:
                host.forget(name)
            case 4:
                host.take_copies()
        owned = [slot for c in host._contexts.values() for slot in c.slots]
        assert len(set(owned)) == len(owned)
        assert len(owned) + host.slots.free + len(host.slots._next_step) == 20
