# SPDX-License-Identifier: Apache-2.0
"""Which blocks go to which slots, and that every slot comes back."""

from __future__ import annotations

import itertools
import random

import pytest
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
    return Spill(slots, BLOCK, block_bytes=100, by_layer=True)


def test_a_spilled_request_comes_back_from_its_slots() -> None:
    host = spill()
    assert host.preempt(request("a", 40), [7, 8, 9])
    assert host.take_copies().offloads == [(7, 0), (8, 1), (9, 2)]
    assert host.tokens("a") == 40 and host.held() == {"a": 300}
    # Its first block is still cached: the other two come from the host.
    host.admit("a", [7, 4, 5, 6], start=16, tokens=24)
    copies = host.take_copies()
    assert copies.full == [(1, 4)]
    assert copies.partial == [(2, 5)], "the step fills the rest of it"
    assert host.tokens("a") == 0
    host.restored({"a"})
    # Full blocks stay copied; the half-filled one has to be copied anew.
    assert host.preempt(request("a", 50), [7, 4, 5, 6])
    assert [block for block, _ in host.take_copies().offloads] == [5, 6]
    host.forget("a")
    host.take_copies()
    assert host.slots.free == 8


def test_blocks_are_copied_ahead_when_they_are_full() -> None:
    host = spill()
    running = request("a", 40)
    assert host.copy_ahead(running, [7, 8, 9], limit=1) == 1
    assert host.copy_ahead(running, [7, 8, 9], limit=9) == 1, "the third is not full"
    assert host.take_copies().offloads == [(7, 0), (8, 1)]
    assert host.tokens("a") == 0, "it holds its blocks itself"
    assert host.preempt(running, [7, 8, 9])
    assert host.take_copies().offloads == [(9, 2)], "little is left to copy when they are taken"
    assert host.tokens("a") == 40


def test_what_was_copied_ahead_makes_room() -> None:
    host = spill(slots=4)
    host.copy_ahead(request("ahead", 48), [1, 2, 3], limit=3)
    host.take_copies()
    assert host.preempt(request("a", 48), [4, 5, 6])
    assert host.tokens("a") == 48 and host.held()["ahead"] == 0


def test_what_this_step_reads_or_writes_makes_no_room() -> None:
    host = spill(slots=4)
    host.preempt(request("a", 48), [1, 2, 3])
    host.take_copies()
    host.admit("a", [1, 2, 3], 0, 48)
    host.preempt(request("b", 48), [4, 5, 6])
    copies = host.take_copies()
    assert not {slot for _, slot in copies.offloads} & {slot for slot, _ in copies.restores}
    assert host.tokens("b") == 16, "one slot was free"
    assert not host.preempt(request("c", 48), [7, 8, 9]), "its layers read them while it runs"
    # When it has completed, a's slots are copied ahead only, and make room.
    host.restored({"a"})
    assert host.preempt(request("c", 48), [7, 8, 9])
    assert host.tokens("c") == 48


def test_with_too_little_room_the_beginning_is_kept() -> None:
    host = spill(slots=2)
    assert host.preempt(request("a", 48), [4, 5, 6])
    assert host.tokens("a") == 32
    assert not host.preempt(request("b", 48), [7, 8, 9]), "what others wait for is not given up"
    assert host.tokens("a") == 32 and host.tokens("b") == 0


def test_the_cheaper_way_is_taken() -> None:
    host = spill()
    host.costs.copied(
        CopyReport(offloaded=10, offload_seconds=10.0, restored=10, restore_seconds=10.0)
    )
    host.costs.computed(1000, 1.0)
    assert not host.preempt(request("a", 48), [1, 2, 3]), "6 s to copy, 0.05 s to compute"
    assert host.take_copies().offloads == []
    host.costs.computed(1000, 1e6)
    assert host.preempt(request("a", 48), [1, 2, 3])
    # Copied out already; and what spoke against it once is believed a little less.
    assert host.restore_seconds(request("a", 48)) == pytest.approx(2.7)


def test_what_others_keep_in_the_cache_is_not_copied() -> None:
    host = spill()
    host.costs.copied(
        CopyReport(offloaded=10, offload_seconds=10.0, restored=10, restore_seconds=10.0)
    )
    host.costs.computed(1000, 1000.0)
    # Two of three blocks stay cached: 3 s out and 1 s back, against 16 tokens, which take 16 s.
    assert host.restore_seconds(request("a", 48), shared=2) == pytest.approx(4.0)
    host.costs.computed(1000, 100.0)
    host.costs.computed(1000, 100.0)
    assert host.costs.recompute(16) > 4.0
    assert host.preempt(request("a", 33), [1, 2, 3], shared=2) == 0, "one token, less than a second"
    assert host.copy_ahead(request("b", 48), [1, 2, 3], limit=3, shared=3) == 0
    assert host.held() == {}


def test_nothing_is_copied_ahead_to_a_store_that_is_slow_to_write() -> None:
    host = spill()
    host.costs.copied(
        CopyReport(offloaded=10, offload_seconds=100.0, restored=10, restore_seconds=0.1)
    )
    host.costs.computed(1000, 1.0)
    assert host.copy_ahead(request("a", 48), [1, 2, 3], limit=3) == 0, "30 s to save 0.05 s"
    # As with what is on the host already: nothing is left to write.
    assert host.costs.restore(0, 3) < host.costs.recompute(48)


def test_what_cannot_be_restored_says_nothing_of_copy_rates() -> None:
    host = spill()
    host.costs.copied(
        CopyReport(offloaded=10, offload_seconds=10.0, restored=10, restore_seconds=10.0)
    )
    for _ in range(9):
        assert not host.preempt(request("a", 0), [])
    assert host.costs.restore(1, 1) == 2.0


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
    host.completed(CopyReport(restored=4, restore_seconds=0.1, errors=1), {6})
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


def test_every_block_comes_back_as_it_went_whatever_happens() -> None:
    rng = random.Random(0)
    host = spill(slots=20)
    blocks = itertools.count()
    content: dict[int, tuple[str, int, int]] = {}  # of a KV block: whose, which, how many tokens
    stored: dict[int, tuple[str, int, int]] = {}  # by slot
    computed = dict.fromkeys("abcdef", 0)
    wanted: dict[int, tuple[str, int, int]] = {}
    restored = 0
    # Full blocks that a step of each request reads, which is not completed.
    reads: dict[str, list[tuple[int, int]]] = {}
    begins: set[str] = set()  # in the step that is put together

    def read(pairs: list[tuple[int, int]]) -> None:
        nonlocal restored
        for slot, block in pairs:
            whose, index, tokens = stored[slot]
            assert (whose, index) == wanted[block][:2] and tokens >= wanted[block][2]
            restored += 1

    def holds(name: str) -> list[int]:
        """Blocks that hold all that a request has computed."""
        ids = []
        for index in range(-(-computed[name] // BLOCK)):
            ids.append(next(blocks))
            content[ids[-1]] = name, index, min(BLOCK, computed[name] - index * BLOCK)
        return ids

    for _ in range(10000):
        name = rng.choice("abcdef")
        waits = host.tokens(name)
        runs = name in reads
        match rng.randrange(7):
            case 0 if not waits and not runs:
                host.preempt(request(name, computed[name]), holds(name))
                computed[name] = host.tokens(name)
            case 1 if waits:
                start = BLOCK * rng.randrange(waits // BLOCK + 1)
                ids = holds(name)
                reads[name] = []
                begins.add(name)
                host.admit(name, ids, start, waits - start)
                wanted |= {block: content[block] for block in ids[start // BLOCK :]}
            case 2 if not waits and not runs:
                host.copy_ahead(request(name, computed[name]), holds(name), rng.randrange(5))
            case 3 if not waits and not runs:
                computed[name] = min(7 * BLOCK, computed[name] + rng.randrange(40))
            case 4 if rng.random() < 0.3 and not runs:
                host.forget(name)
                computed[name] = 0
            case 5:
                copies = host.take_copies()
                stored |= {slot: content[block] for block, slot in copies.offloads}
                read(copies.partial)
                for pair in copies.full:
                    reads[wanted[pair[1]][0]].append(pair)
                begins.clear()
            case 6 if runs and name not in begins:
                read(reads.pop(name))
                host.restored({name})
        owned = [slot for c in host._contexts.values() for slot in c.slots]
        assert len(set(owned)) == len(owned)
        assert len(owned) + host.slots.free + len(host.slots._next_step) == 20
    assert restored > 500
