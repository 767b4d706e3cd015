# SPDX-License-Identifier: Apache-2.0
"""An engine's client without an engine: vLLM's own record of the requests that were sent to it."""

from __future__ import annotations

from vllm import SamplingParams
from vllm.v1.engine import EngineCoreRequest
from vllm.v1.engine.output_processor import OutputProcessor


class Client:
    """What of an ``AsyncLLM`` is looked at beside its engine."""

    errored = False

    def __init__(self) -> None:
        self.output_processor = OutputProcessor(None, log_stats=False)

    async def check_health(self) -> None:
        """Well."""

    def send(self, name: str) -> None:
        """A request goes to the engine."""
        request = EngineCoreRequest(
            request_id=name,
            external_req_id=name,
            prompt_token_ids=[1, 2],
            mm_features=None,
            sampling_params=SamplingParams(detokenize=False),
            pooling_params=None,
            arrival_time=0.0,
            lora_request=None,
            cache_salt=None,
            data_parallel_rank=None,
        )
        self.output_processor.add_request(request, None)

    def end(self, *names: str) -> None:
        """Its clients go away."""
        self.output_processor.abort_requests(names, internal=True)
