# SPDX-License-Identifier: Apache-2.0
"""A request that the engine refuses while it runs is answered with the reason.

vLLM answers every request that ends with an error with status 500 and "Internal server error".
The engine sends the reason as the request's ``stop_reason``.
"""

from __future__ import annotations

import functools
from typing import Any

from vllm.exceptions import VLLMValidationError
from vllm.v1.engine import FinishReason

_MARK = "priority_refusals"


def explain(client: Any) -> None:
    """Let the requests of an engine's client end with reasons.

    Args:
        client: an ``AsyncLLM``.
    """
    processor = client.output_processor
    if not hasattr(processor, _MARK):
        setattr(processor, _MARK, True)
        original = processor.process_outputs
        processor.process_outputs = functools.partial(_process_outputs, processor, original)


def _process_outputs(processor: Any, original: Any, outputs: Any, *args: Any, **kwargs: Any) -> Any:
    refused = [
        (state, output.stop_reason)
        for output in outputs
        if output.finish_reason == FinishReason.ERROR
        and isinstance(output.stop_reason, str)
        and (state := processor.request_states.get(output.request_id)) is not None
    ]
    processed = original(outputs, *args, **kwargs)
    for state, reason in refused:
        if state.queue is None:
            continue
        # Whoever waits for the answer gets status 400, or an error event in the stream.
        state.queue.put(VLLMValidationError(reason, parameter="structured_outputs"))
        if state.parent_req is not None:  # of `n`, the others end with it
            parent = state.parent_req.request_id
            processed.reqs_to_abort += processor.abort_requests([parent], internal=True)
    return processed
