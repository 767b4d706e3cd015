# SPDX-License-Identifier: Apache-2.0
"""Results are told by the output of ``schedule()`` that they are of, not by when they come."""

from __future__ import annotations

from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.outputs import ModelRunnerOutput

from tests.engine.bare_scheduler import BE, LS, Make


def result(output: SchedulerOutput, *tokens: int) -> ModelRunnerOutput:
    """What a worker answers for a step, with these tokens for each of its requests."""
    names = list(output.num_scheduled_tokens)
    return ModelRunnerOutput(
        req_ids=names,
        req_id_to_index={name: i for i, name in enumerate(names)},
        sampled_token_ids=[list(tokens) for _ in names],
    )


def test_two_steps_in_flight_complete_in_the_order_in_which_they_began(make: Make) -> None:
    bare = make(tokens=64)
    scheduler = bare.scheduler
    request = bare.add("a", BE, 100, out=1)
    first, second = scheduler.schedule(), scheduler.schedule()
    assert [o.num_scheduled_tokens for o in (first, second)] == [{"a": 64}, {"a": 36}]
    scheduler.update_from_output(first, result(first))
    assert [step.output for step in scheduler.in_flight] == [second]
    scheduler.update_from_output(second, result(second, 7))
    assert not scheduler.in_flight and list(request.output_token_ids) == [7]
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
