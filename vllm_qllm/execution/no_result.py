# SPDX-License-Identifier: Apache-2.0
"""What a worker answers for a step that was given up: every request, and no token for any."""

from __future__ import annotations

from vllm.distributed.kv_transfer.kv_transfer_state import (
    get_kv_transfer_group,
    has_kv_transfer_group,
)
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.outputs import ModelRunnerOutput

from vllm_qllm.kv.connector import SpillConnector


def no_result(output: SchedulerOutput) -> ModelRunnerOutput:
    """The result of the step just unwound, whose copies of KV have ended like those of any."""
    request_ids = list(output.num_scheduled_tokens)
    copies = None
    if has_kv_transfer_group():
        connector = get_kv_transfer_group()
        assert isinstance(connector, SpillConnector)
        copies = connector.output_of_ended_step()
    return ModelRunnerOutput(
        req_ids=request_ids,
        req_id_to_index={request_id: i for i, request_id in enumerate(request_ids)},
        kv_connector_output=copies,
    )
