# SPDX-License-Identifier: Apache-2.0
"""What a step that is put together can still hold, but for KV blocks."""

from __future__ import annotations

from collections.abc import Callable

from vllm.v1.core.sched.interface import PauseState
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import Request, RequestStatus

from vllm_qllm.engine.requests import Requests

# Statuses in which a waiting request cannot be let in before the client or another machine acts.
AWAY = (RequestStatus.WAITING_FOR_STREAMING_REQ, RequestStatus.WAITING_FOR_REMOTE_KVS)


class StepRoom:
    """Counts as vLLM's ``schedule()`` does: rows, tokens, inputs of the drafter, adapters.

    vLLM schedules admitted requests first and lets others in with what they leave. So whatever
    rides must leave everything that the leading class could use, its waiting requests included.
    vLLM checks the adapters of admitted requests by an assertion alone.

    Args:
        scheduler: vLLM's part of it, which has the limits.
        requests: of it.
        level: class that leads the step.
        on_host: tokens of a waiting request that need not be computed, by its id.

    Attributes:
        sessions: streamed requests of the leading class that wait for their client and count as
            rows. Those of other classes do not: model runner V1 holds only the requests of one
            step.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        requests: Requests,
        level: int,
        on_host: Callable[[str], int],
    ) -> None:
        spec = scheduler.vllm_config.speculative_config
        self._scheduler = scheduler
        self._requests = requests
        self._level = level
        self._on_host = on_host
        rows = min(scheduler.max_num_active_reqs, scheduler.max_num_running_reqs)
        self.sessions = self._count_sessions()
        self._rows = rows - self.sessions
        self._tokens = scheduler.max_num_scheduled_tokens
        self._inputs = scheduler.scheduler_config.max_num_batched_tokens
        self._drafted = spec.max_num_new_slots_for_drafting if spec is not None else 0
        lora = scheduler.lora_config
        self._slots = lora.max_loras if lora is not None else 0
        self._adapters: set[int] = set()

    def _count_sessions(self) -> int:
        if not self._scheduler.num_waiting_for_streaming_input:
            return 0
        waiting = RequestStatus.WAITING_FOR_STREAMING_REQ
        return sum(r.status == waiting for r in self._requests.waiting(self._level))

    def lead(self, admitted: list[Request]) -> list[Request]:
        """Those of the leading class's ``admitted`` requests that one step can hold, in order.

        More than ``max_loras`` adapters can be among them: vLLM counts those of the requests that
        a step computes, and lets another in while one of them gets no token.
        """
        leading = []
        for request in admitted:
            if self._rows > 0 and self._adapter_fits(request):
                self._take(request)
                leading.append(request)
        return leading

    def wait_for(self) -> list[Request]:
        """The leading class's waiting requests that may be let in, for which room is kept."""
        coming = []
        for request in self._requests.waiting(self._level):
            if self._rows <= 0:
                break
            if request.status not in AWAY and self._adapter_fits(request):
                self._take(request)
                coming.append(request)
        return coming

    def take(self, request: Request) -> bool:
        """Take a request along if all of it fits."""
        tokens = self._tokens_of(request)
        fits = self._rows > 0 and tokens <= min(self._tokens, self._inputs - self._drafted)
        if not fits or not self._adapter_fits(request):
            return False
        self._take(request)
        return True

    def is_certain(self, request: Request) -> bool:
        """Whether a request that has room is scheduled indeed."""
        if request.status == RequestStatus.RUNNING:
            return True
        ready = request.status in (RequestStatus.WAITING, RequestStatus.PREEMPTED)
        return (
            ready
            and not request.num_stale_output_tokens
            and self._scheduler.pause_state == PauseState.UNPAUSED
        )

    def _take(self, request: Request) -> None:
        tokens = self._tokens_of(request)
        self._rows -= 1
        self._tokens -= tokens
        self._inputs -= tokens + self._drafted
        if request.lora_request is not None:
            self._adapters.add(request.lora_request.lora_int_id)

    def _adapter_fits(self, request: Request) -> bool:
        if request.lora_request is None or request.lora_request.lora_int_id in self._adapters:
            return True
        return len(self._adapters) < self._slots

    def _tokens_of(self, request: Request) -> int:
        """Tokens that ``request`` can use at most; cached prefixes are not looked up."""
        tokens = int(request.num_tokens_with_spec) - request.num_computed_tokens
        if request.status != RequestStatus.RUNNING:
            # vLLM pads who comes in with one token to the rows of a speculative decode.
            tokens = max(tokens, 1 + self._scheduler.num_spec_tokens)
            tokens -= self._on_host(request.request_id)
        return tokens
