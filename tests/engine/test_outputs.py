# SPDX-License-Identifier: Apache-2.0
"""Results are told by the output of ``schedule()`` that they are of, not by when they come."""

from __future__ import annotations

import pytest
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import RequestStatus
from vllm.v1.structured_output.request import StructuredOutputRequest

from tests.engine.bare_scheduler import BE, LS, BareScheduler, Make
from tests.engine.grammars import Anything, constraint


def result(output: SchedulerOutput, *tokens: int) -> ModelRunnerOutput:
    """What a worker answers for a step, with these tokens for each of its requests."""
    names = list(output.num_scheduled_tokens)
    return ModelRunnerOutput(
        req_ids=names,
        req_id_to_index={name: i for i, name in enumerate(names)},
        sampled_token_ids=[list(tokens) for _ in names],
    )


def finish(bare: BareScheduler) -> None:
    """Run until all requests have ended."""
    scheduler = bare.scheduler
    for _ in range(100):
        if not scheduler.requests:
            return
        output = scheduler.schedule()
        chunks = [scheduler.requests[n].is_prefill_chunk for n in output.num_scheduled_tokens]
        answer = result(output, 7)
        answer.sampled_token_ids = [[] if chunk else [7] for chunk in chunks]
        scheduler.update_from_output(output, answer)
    raise AssertionError(f"{scheduler.requests.keys()} do not end")


def test_two_steps_in_flight_complete_in_the_order_in_which_they_began(make: Make) -> None:
    bare = make(tokens=64)
    scheduler = bare.scheduler
    request = bare.add("a", BE, 100, out=1)
    first, second = scheduler.schedule(), scheduler.schedule()
    assert [o.num_scheduled_tokens for o in (first, second)] == [{"a": 64}, {"a": 36}]
    scheduler.update_from_output(first, result(first))
    assert [step.output for step in scheduler.flight] == [second]
    scheduler.update_from_output(second, result(second, 7))
    assert not scheduler.flight and list(request.output_token_ids) == [7]
    assert not scheduler.requests


def test_the_results_of_an_output_that_it_did_not_make_are_applied(make: Make) -> None:
    bare = make(tokens=64)
    scheduler = bare.scheduler
    request = bare.add("a", LS, 8, out=2)
    output = scheduler.schedule()
    scheduler.update_from_output(output, result(output, 7))
    made = SchedulerOutput.make_empty()
    made.num_scheduled_tokens, made.total_num_scheduled_tokens = {"a": 1}, 1
    scheduler.update_from_output(made, result(made, 8))
    assert list(request.output_token_ids) == [7, 8] and not scheduler.requests


def test_one_that_lost_its_blocks_while_its_step_ran_keeps_the_token(make: Make) -> None:
    bare = make(blocks=10, tokens=100)
    scheduler = bare.scheduler
    one = bare.add("one", BE, 80, out=9)
    first = scheduler.schedule()
    other = bare.add("other", BE, 80, out=9)
    second = scheduler.schedule()
    assert [o.num_scheduled_tokens for o in (first, second)] == [{"one": 80}, {"other": 80}]
    scheduler.update_from_output(first, result(first, 7))
    third = scheduler.schedule()  # takes the blocks of the one that came later
    assert third.num_scheduled_tokens == {"one": 1} and other.status == RequestStatus.PREEMPTED
    scheduler.update_from_output(second, result(second, 42))
    assert list(other.output_token_ids) == [42]
    scheduler.update_from_output(third, result(third, 8))
    assert list(one.output_token_ids) == [7, 8] and not scheduler.flight


def test_a_stop_token_ends_a_request_whatever_made_the_step(make: Make) -> None:
    bare = make()
    scheduler = bare.scheduler
    request = bare.add("a", LS, 8, out=9)
    request.sampling_params.stop_token_ids = [11]
    request.sampling_params._all_stop_token_ids = {11}
    output = scheduler.schedule()
    scheduler.update_from_output(output, result(output, 11))
    assert request.status == RequestStatus.FINISHED_STOPPED and not scheduler.requests


class Nothing(Anything):
    """Accepts no token: its automaton cannot advance."""

    def accept_tokens(self, request_id: str, tokens: list[int]) -> bool:
        return False


@pytest.mark.parametrize("refusing", [LS, BE])
def test_a_request_ends_when_its_grammar_cannot_advance(make: Make, refusing: int) -> None:
    """With an error, and the others of its step go on."""
    bare = make(blocks=16)
    scheduler = bare.scheduler
    levels = {"refused": refusing, "same": refusing, "other": BE if refusing == LS else LS}
    requests = {name: bare.add(name, level, 20, out=3) for name, level in levels.items()}
    requests["refused"].structured_output_request = StructuredOutputRequest(
        params=constraint(regex="a"), _grammar=Nothing()
    )
    tokens = 0
    while scheduler.requests:
        bare.begin()
        bare.end()
        tokens += 1
        assert tokens < 20
    assert bare.finished == {"refused": "error", "same": "length", "other": "length"}
    assert requests["refused"].status == RequestStatus.FINISHED_ERROR
    assert requests["refused"].num_output_tokens == 1, "of its only step"
    bare.assert_idle()


def test_a_reset_before_the_step_completes_keeps_the_order(make: Make) -> None:
    """All wait as they had come; what the step computes for them is dropped.

    The queue has no places by number, nor has that of vLLM's own priority policy.
    """
    bare = make(seqs=10, tokens=256)
    scheduler = bare.scheduler
    requests = [bare.add(f"r{n}", BE, 20, out=3) for n in range(10)]
    output = scheduler.schedule()
    assert scheduler.running == requests and not scheduler.waiting
    assert not scheduler.reset_prefix_cache(), "their blocks are in use"
    assert scheduler.reset_prefix_cache(reset_running_requests=True)
    assert not scheduler.running and list(scheduler.waiting) == requests
    assert bare.free == bare.blocks
    scheduler.update_from_output(output, result(output, 7))
    assert not scheduler.flight and not any(r.num_output_tokens for r in requests)
    again = scheduler.schedule()
    assert scheduler.running == requests
    scheduler.update_from_output(again, result(again, 7))
    finish(bare)
    assert all(r.num_output_tokens == 3 for r in requests)
    bare.assert_idle()


def test_a_reset_of_running_requests_lets_all_wait_and_frees_every_block(make: Make) -> None:
    bare = make(seqs=4, tokens=256)
    scheduler = bare.scheduler
    requests = [bare.add(f"r{n}", BE, 20, out=5) for n in range(3)]
    for _ in range(2):
        bare.begin()
        bare.end()
    assert len(scheduler.running) == 3 and not scheduler.reset_prefix_cache()
    assert scheduler.reset_prefix_cache(reset_running_requests=True)
    assert not scheduler.running and bare.free == bare.blocks
    bare.content.clear()
    while scheduler.requests:
        bare.begin()
        bare.end()
    assert all(request.num_output_tokens == 5 for request in requests)
