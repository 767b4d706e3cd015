# SPDX-License-Identifier: Apache-2.0
"""State of a batch row that cannot be made again from the tokens of its request.

Model runner V1 removes the row of a request that is not in a step, and adds it again later, here in
another lane's batch perhaps. Everything in a row comes from ``CachedRequestState``, but for what
grows with each sampled token: how far the forced end of a thinking budget has come, and what a
user's logits processor for single requests remembers. That goes along with the request.

Symptom without it: the forced end phrase of ``thinking_token_budget`` begins again. Can go when
vLLM keeps this state with the request.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

# The attribute of ``CachedRequestState`` that holds what a removed row had.
KEPT = "priority_row_state"


def _holders(batch: Any) -> list[dict[int, Any]]:
    """What ``batch`` keeps by row and cannot make again, always in the same order."""
    budgets = batch.thinking_budget_state_holder
    found = [] if budgets is None else [budgets._state]
    adapters = (p for p in batch.logitsprocs.all if isinstance(p, AdapterLogitsProcessor))
    return found + [p.req_info for p in adapters]


def remove_row(runner: Any, batch: Any, request_id: str) -> None:
    """Remove a request from ``batch``, if it is in it; what its row remembers is kept for the next.

    Args:
        runner: a V1 model runner.
        batch: one of its batches, between two steps.
        request_id: of the request.
    """
    row = batch.req_id_to_index.get(request_id)
    if row is None:
        return
    if request_id in runner.requests:
        _keep(runner, request_id, [holder.get(row) for holder in _holders(batch)])
    batch.remove_request(request_id)


def _keep(runner: Any, request_id: str, state: list[Any]) -> None:
    if any(part is not None for part in state):
        setattr(runner.requests[request_id], KEPT, state)


@contextmanager
def rows_handed_over(runner: Any, output: SchedulerOutput) -> Iterator[None]:
    """Around ``_update_states``: keep what removed rows had, give it back to rows added again.

    Args:
        runner: a V1 model runner.
        output: of the step that is about to run.
    """
    batch = runner.input_batch
    holders = _holders(batch)
    if not holders:
        yield
        return
    before = {
        request_id: [holder.get(row) for holder in holders]
        for request_id, row in batch.req_id_to_index.items()
    }
    yield
    for request_id, state in before.items():
        if request_id in runner.requests and request_id not in batch.req_id_to_index:
            _keep(runner, request_id, state)
    # A request that is new, or goes on with another prompt, begins anew.
    new = {request.req_id for request in output.scheduled_new_reqs}
    resumed = output.scheduled_cached_reqs.resumed_req_ids
    holders = _holders(batch)
    for request_id, row in batch.req_id_to_index.items():
        kept = vars(runner.requests[request_id]).pop(KEPT, None)
        if request_id in new:
            continue
        if kept is None and request_id in resumed:
            kept = before.get(request_id)
        for holder, part in zip(holders, kept or (), strict=bool(kept)):
            if part is not None:
                holder[row] = part
