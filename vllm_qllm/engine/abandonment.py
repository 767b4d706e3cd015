# SPDX-License-Identifier: Apache-2.0
"""Giving up a suspended step: its KV blocks are needed, or an operator's call waits for its end."""

from __future__ import annotations

from vllm.v1.request import Request, RequestStatus

from vllm_qllm.engine.accounting import Accounting
from vllm_qllm.engine.blocks import Blocks
from vllm_qllm.engine.census import is_decoding
from vllm_qllm.engine.flight import Flight
from vllm_qllm.engine.requests import Requests
from vllm_qllm.engine.step import Step
from vllm_qllm.engine.victims import Victims


class Abandonment:
    """Decides for one scheduler which steps are given up, and takes back what they had begun.

    A request that is held back loses its blocks to more urgent ones; one in a suspended step
    cannot, because its step would go on writing them. Letting that step end first would make the
    urgent request wait for all of it. So the step is given up where it stands: its requests are
    held back like all others, as if they had never been in it, and what is lost is its work.

    In order: ``begin`` and ``note`` while a step is put together; ``wanted``, and ``give_up``,
    while one is suspended; ``ending`` and ``ended`` around vLLM's own end of the step.

    Args:
        requests, flight, blocks, victims, accounting: of the scheduler.
    """

    def __init__(
        self,
        requests: Requests,
        flight: Flight,
        blocks: Blocks,
        victims: Victims,
        accounting: Accounting,
    ) -> None:
        self._requests = requests
        self._flight = flight
        self._blocks = blocks
        self._victims = victims
        self._accounting = accounting
        # Requests that the last ``schedule()`` left without blocks, and that would find them.
        self._lacking: set[str] = set()

    # -- whether -------------------------------------------------------------------------------

    @property
    def wanted(self) -> bool:
        """Whether a request waits for blocks that giving up suspended steps would leave it."""
        return any(self._requests.known(request_id) for request_id in self._lacking)

    def begin(self) -> None:
        """Before ``schedule()``: who lacks blocks is to be seen."""
        self._lacking.clear()

    def note(self, request: Request, lacking: bool) -> None:
        """Record whether giving steps up would satisfy this request; later calls override."""
        if lacking:
            self._lacking.add(request.request_id)
        else:
            self._lacking.discard(request.request_id)

    def victims(self, level: int) -> list[Request]:
        """Requests of suspended steps that may be given up for class ``level``.

        A step ends before the one that it runs on top of, so the first that may not be given up
        protects all below it.
        """
        found: list[Request] = []
        for step in reversed(self._flight.suspended):
            requests = self._requests.living(step.request_ids)
            may_end = step.level > level and not step.restoring
            if not may_end or not all(map(self._victims.may_lose_step, requests)):
                break
            found += requests
        return found

    def may_end(self, step: Step, losing: bool) -> bool:
        """Whether a suspended step may be given up for a call that waits for its end.

        Args:
            step: the one that was suspended last.
            losing: whether its requests go on afterwards, and lose its work. They are protected as
                from more urgent requests, or calls that come often would starve them.
        """
        if step.restoring:
            return False
        return not losing or all(
            map(self._victims.may_lose_step, self._requests.living(step.request_ids))
        )

    def unwanted(self, step: Step) -> bool:
        """Whether nobody waits for a suspended step: its requests have all been aborted."""
        aborted = {request_id for request_id, _ in step.pending_aborts}
        return not step.restoring and step.request_ids.keys() <= aborted

    # -- how -----------------------------------------------------------------------------------

    def give_up(self, step: Step) -> None:
        """Let the step that was suspended last end where it stands."""
        step.abandoned = True
        self._lacking.clear()
        for request_id in step.request_ids:
            self._victims.lost_step(request_id)

    def ending(self, step: Step) -> dict[str, int]:
        """Before vLLM applies the results of a step that was given up: it has none.

        Returns:
            Tokens that each of its requests had computed before it.
        """
        # vLLM has registered the hashes of blocks that are never written now.
        self._blocks.forget(step.unwritten_blocks)
        computed = {}
        for request in self._requests.living(step.request_ids):
            tokens = step.request_ids[request.request_id]
            self._accounting.abandoned(self._requests.level(request), tokens)
            computed[request.request_id] = request.num_computed_tokens - tokens
        return computed

    def ended(self, step: Step, computed: dict[str, int]) -> None:
        """After that: take back the tokens that vLLM counts as computed since the step began."""
        for request_id, before in computed.items():
            request = self._requests.known(request_id)
            if request is None:
                continue
            request.num_computed_tokens = min(request.num_computed_tokens, before)
            request.is_prefill_chunk = not is_decoding(request)
            self._drop_hits(request, step)

    def _drop_hits(self, request: Request, step: Step) -> None:
        """Take the blocks of a request that counts some as computed which ``step`` did not write.

        vLLM lets a request hit blocks that another one of the same step computes.
        """
        valid = self._blocks.valid_tokens(request, step.unwritten_blocks)
        if valid < request.num_computed_tokens and request.status == RequestStatus.RUNNING:
            request.num_computed_tokens = valid  # what may be kept on the host
            self._requests.preempt_running(request)
