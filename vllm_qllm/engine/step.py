# SPDX-License-Identifier: Apache-2.0
"""One scheduled step as the engine knows it, from scheduling to completion."""

from __future__ import annotations

from dataclasses import dataclass, field

from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.request import RequestStatus

from vllm_qllm.policy import SuspendedView


@dataclass(eq=False, slots=True)
class Step:
    """A step in flight or suspended. Times are ``time.monotonic()`` seconds.

    Attributes:
        number: counts up from 1; the arrival flag names steps by it.
        level: its most urgent class.
        lane: which set of per-step buffers of the model runner it uses.
        suspendable: whether it stops at yield points.
        budget: seconds it may run before it must suspend, None for no limit.
        protected: whether arrivals leave it alone until then.
        request_ids: the requests in it, with the tokens scheduled for each.
        output: what ``schedule()`` returned for it, by which its results are told.
        unwritten_blocks: KV blocks it writes; their content is not valid before it completes.
        riding: for each class whose decodes ride, the share of its time that is service of it.
        restoring: KV blocks of all its requests, by request, if it copies any back from the host.
        decode_rows: number of requests when every request decodes one token, else None.
        resumed_at: when it last began to run.
        suspended_at: when it was last suspended, None while it runs.
        ran: seconds it ran before ``resumed_at``.
        yield_point: the yield point it was last suspended at, 0 before.
        abandoned: whether it is given up and has no results.
    """

    number: int
    level: int
    lane: int
    suspendable: bool
    budget: float | None
    protected: bool
    request_ids: dict[str, int]
    output: SchedulerOutput | None = None
    unwritten_blocks: frozenset[int] = frozenset()
    riding: dict[int, float] = field(default_factory=dict)
    restoring: dict[str, list[int]] = field(default_factory=dict)
    decode_rows: int | None = None
    resumed_at: float = 0.0
    suspended_at: float | None = None
    ran: float = 0.0
    yield_point: int = 0
    abandoned: bool = False
    pending_aborts: list[tuple[str, RequestStatus]] = field(default_factory=list)

    def view(self, now: float) -> SuspendedView:
        """What the policy sees of this step while it is suspended."""
        assert self.suspended_at is not None
        return SuspendedView(self.level, now - self.suspended_at, self.ran, self.yield_point)

    def suspend(self, now: float, yield_point: int) -> None:
        """Note that the step stopped at ``yield_point``."""
        self.ran += now - self.resumed_at
        self.suspended_at = now
        self.yield_point = yield_point

    def resume(self, now: float) -> float:
        """Note that the step runs again; returns the seconds that it did not."""
        assert self.suspended_at is not None
        seconds = now - self.suspended_at
        self.suspended_at = None
        self.resumed_at = now
        return seconds
