# SPDX-License-Identifier: Apache-2.0
"""How much work each class has: one look at all requests, which all who ask share."""

from __future__ import annotations

from dataclasses import dataclass

from vllm.v1.request import Request, RequestStatus

from vllm_qllm.engine.blocks import Blocks
from vllm_qllm.engine.flight import Flight
from vllm_qllm.engine.requests import Requests


@dataclass(slots=True)
class ClassRecord:
    """The requests of one class.

    Attributes:
        level: the class.
        waiting: not admitted.
        prefilling, decoding: admitted, and in no suspended step.
        suspended: in suspended steps.
        suspended_prompts, suspended_decodes: whether prompts, and decodes, are among these.
        prompt_tokens: that ``prefilling`` have yet to compute.
    """

    level: int
    waiting: int = 0
    prefilling: int = 0
    decoding: int = 0
    suspended: int = 0
    suspended_prompts: bool = False
    suspended_decodes: bool = False
    prompt_tokens: int = 0

    @property
    def running(self) -> int:
        """Admitted requests that are in no suspended step."""
        return self.prefilling + self.decoding


class Census:
    """Counts the requests of one scheduler.

    Args:
        requests: these.
        flight: the steps that they are in.
        blocks: that they hold.
    """

    def __init__(self, requests: Requests, flight: Flight, blocks: Blocks) -> None:
        self._requests = requests
        self._flight = flight
        self._blocks = blocks
        self._records: list[ClassRecord] | None = None
        self._parked: list[list[Request]] = []

    def outdated(self) -> None:
        """Something has happened to a request or a step since the last look."""
        self._records = None

    def take(self) -> list[ClassRecord]:
        """A record for each class, most urgent first; the last ones if nothing has happened."""
        if self._records is None:
            self._records = self._look()
        return self._records

    def parked(self) -> list[tuple[int, int]]:
        """Of each class: how many requests are admitted and in no step, and KV blocks of these."""
        self.take()
        return [(len(rows), sum(map(self._blocks.count, rows))) for rows in self._parked]

    def _look(self) -> list[ClassRecord]:
        requests, flight = self._requests, self._flight
        records = [ClassRecord(level, requests.count_waiting(level)) for level in requests.levels]
        suspended: dict[str, int] = {}
        for step in flight.suspended:
            suspended |= step.request_ids
        runs = {name for step in flight for name in step.request_ids}
        self._parked = [[] for _ in requests.levels]
        for request in requests.admitted:
            record = records[requests.level(request)]
            name = request.request_id
            tokens = suspended.get(name)
            if tokens is not None:
                record.suspended += 1
                decodes = tokens == 1 and request.num_output_tokens > 0
                record.suspended_decodes |= decodes
                record.suspended_prompts |= not decodes
                continue
            if is_decoding(request):
                record.decoding += 1
            else:
                record.prefilling += 1
                record.prompt_tokens += request.num_tokens - request.num_computed_tokens
            if name not in runs:
                self._parked[record.level].append(request)
        return records

    # -- what waits for something else than its turn -------------------------------------------

    def blocked(self) -> list[int]:
        """Waiting requests a class that cannot be scheduled yet, whatever the plan."""
        counts = [0 for _ in self._requests.levels]
        for request in self._requests.deferred:
            if _is_blocked(request):
                counts[self._requests.level(request)] += 1
        return counts

    def compiling(self, limit: int) -> bool:
        """Whether a request of a class below ``limit`` waits for its grammar alone."""
        waiting = (r for r in self._requests.deferred if _is_compiling(r))
        return any(self._requests.level(r) < limit for r in waiting)


def is_decoding(request: Request) -> bool:
    """Whether an admitted request has its prompt computed, and its last token is next.

    Not by ``is_prefill_chunk``: that is still set when a prompt that is computed again, after a
    loss of its blocks, was left with one token, which is then computed as any decode.
    """
    missing = request.num_tokens - request.num_computed_tokens
    return missing <= 1 and request.num_output_tokens > 0


def _is_compiling(request: Request) -> bool:
    """Whether the grammar of a waiting request is not ready; no arrival will tell when it is."""
    structured = request.structured_output_request
    return (
        request.status == RequestStatus.WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR
        and structured is not None
        and not structured.grammar
    )


def _is_blocked(request: Request) -> bool:
    """Whether a waiting request could not be scheduled now, whatever the plan."""
    return _is_compiling(request) or request.status in (
        RequestStatus.WAITING_FOR_REMOTE_KVS,
        RequestStatus.WAITING_FOR_STREAMING_REQ,
    )
