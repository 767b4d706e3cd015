# SPDX-License-Identifier: Apache-2.0
"""One engine over simulated time."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace

from vllm_qllm.capacity.batch import Batch
from vllm_qllm.capacity.class_scheduler import ClassScheduler
from vllm_qllm.capacity.cost import Cost
from vllm_qllm.capacity.flight import Flight
from vllm_qllm.capacity.meter import Meter
from vllm_qllm.capacity.request import Request
from vllm_qllm.capacity.scheduler import Scheduler
from vllm_qllm.capacity.server import Server
from vllm_qllm.capacity.stock import StockScheduler
from vllm_qllm.policy import EngineView, Plan, Resume, Run, SuspendedView

# While riders may be taken along, their number follows from measured steps: look again this often.
LEARNING_STEPS = 32


class Replica:
    """Schedules, runs, suspends and resumes steps; knows nothing of other replicas.

    Whoever owns it calls :meth:`event` at ``next_event`` and :meth:`arrive` in order of time.

    Attributes:
        next_event: when something happens here unless a request arrives first; infinity if idle.
        outstanding: requests that have arrived and not ended, by class.
    """

    def __init__(
        self,
        server: Server,
        cost: Cost,
        meter: Meter,
        ended: Callable[[Request, float], None],
        seed: str = "0",
        table: list[float] | None = None,
    ) -> None:
        self.server = server
        self.cost = cost
        self.meter = meter
        self.outstanding = [0] * len(server.priority.classes)
        self.next_event = math.inf
        self._table = cost.table(server.token_budget) if table is None else table
        self._ended = ended
        self._random = random.Random(seed)
        self._flight: Flight | None = None
        self._suspended: list[Flight] = []
        # Who has arrived since the scheduler was asked last.
        self._arrived: list[Request] = []
        self._plans = server.scheduling == "classes"
        self._scheduler: Scheduler = (
            ClassScheduler(server) if self._plans else StockScheduler(server)
        )

    # -- events --------------------------------------------------------------------------------

    def arrive(self, request: Request, now: float) -> None:
        """A request reaches the engine, whose scheduler sees it between steps only."""
        request.arrived = now
        self.outstanding[request.level] += 1
        self._arrived.append(request)
        flight = self._flight
        if flight is None:
            if math.isinf(self.next_event):  # else it is about to decide
                self._decide(now)
            return
        if flight.steps > 1:
            self._cut(flight, now)
        batch = flight.batch
        if batch.suspendable and not flight.protected and request.level < batch.level:
            self._stop(flight, now)

    def event(self) -> None:
        """What is due at ``next_event`` happens."""
        now, flight = self.next_event, self._flight
        if flight is None:
            self._decide(now)
        elif flight.stopping:
            self._suspend(flight, now)
        else:
            self._flight = None
            self._complete(flight, flight.steps, now)
            self._decide(now)

    # -- steps in flight -----------------------------------------------------------------------

    def _cut(self, flight: Flight, now: float) -> None:
        """Keep of a run of steps the one that is in progress."""
        done = flight.done(now)
        if done:
            at = flight.resumed + flight.lasting(done)
            self._advance(flight, done, at)
            flight.began = flight.resumed = at
            flight.seconds += done * flight.longer
            self._space(flight)
        flight.steps = 1
        self.next_event = flight.end

    def _advance(self, flight: Flight, steps: int, now: float) -> None:
        """``steps`` of a run have ended and others follow."""
        batch = flight.batch
        blocks = self._scheduler.blocks
        for row in batch.decodes:
            row.computed += steps
            row.emitted += steps
            # The step that follows needs its block as well.
            blocks.take(row, row.computed + 1)
        self._note(flight, steps, now)

    def _note(self, flight: Flight, steps: int, now: float) -> None:
        batch = flight.batch
        self.meter.tokens(batch.decodes, steps, flight.began, now)
        scheduler = self._scheduler
        if isinstance(scheduler, ClassScheduler) and not batch.prefills:
            seconds = flight.lasting(steps) / steps
            scheduler.decode_cost.observe(len(batch.decodes), seconds, steps)

    def _complete(self, flight: Flight, steps: int, now: float) -> None:
        """The last step has ended: tokens come out, requests end."""
        batch = flight.batch
        blocks = self._scheduler.blocks
        finished: set[Request] = set()
        for row in batch.decodes:
            row.computed += steps
            row.emitted += steps
            if steps > 1:
                blocks.take(row, row.computed)
            if row.emitted >= row.output:
                finished.add(row)
        for request, tokens in batch.prefills:
            request.computed += tokens
            if request.missing:
                continue
            request.emitted += 1
            if request.first < 0:
                request.first = now
                self.meter.first_token(request, now)
            else:  # computed again after it had lost its blocks
                self.meter.tokens([request], 1, now, now)
            if request.emitted >= request.output:
                finished.add(request)
        self._note(flight, steps, now)
        self._scheduler.retire(batch, finished)
        if isinstance(self._scheduler, ClassScheduler):
            self._scheduler.service.ended(now)
            self._scheduler.note(now, self._suspended)
        for request in finished:
            self.outstanding[request.level] -= 1
        for request in sorted(finished, key=lambda r: r.number):
            self._ended(request, now)

    def _start(self, batch: Batch, now: float) -> None:
        rows = len(batch.decodes)
        seconds = self._table[batch.tokens] + self.cost.context_s * batch.context
        if self._suspended:
            seconds += self.cost.nested_s
        if batch.prefills:
            seconds += self.cost.pair_s * batch.pairs
            for request, _ in batch.prefills:
                if request.started < 0:
                    request.started = now
                    self.meter.started(request, now)
        factor = 1.0
        if self.cost.noise:
            sigma = self.cost.noise / math.sqrt(batch.steady)
            factor = math.exp(self._random.gauss(-sigma * sigma / 2, sigma))
        flight = Flight(
            batch,
            now,
            now,
            seconds * factor,
            self.cost.context_s * rows * factor,
            batch.steady,
            protected=batch.protected,
        )
        self._space(flight)
        self._run(flight, batch.budget)

    def _space(self, flight: Flight) -> None:
        if flight.batch.suspendable:
            yield_points = self.server.priority.yield_points
            flight.spacing = self.cost.spacing(yield_points, flight.seconds)

    def _run(self, flight: Flight, budget: float | None) -> None:
        self._flight = flight
        flight.stopping = False
        self.next_event = flight.end
        if budget is not None and flight.batch.suspendable:
            self._stop(flight, flight.resumed + budget)

    def _stop(self, flight: Flight, moment: float) -> None:
        """Let the flight be suspended at its first yield point after ``moment``."""
        if flight.stopping and self.next_event <= moment:
            return
        at = flight.stop_after(moment)
        if at is not None and at < self.next_event:
            flight.stopping = True
            self.next_event = at

    def _suspend(self, flight: Flight, now: float) -> None:
        flight.ran += now - flight.resumed
        flight.suspended = now
        flight.stopping = False
        self._suspended.append(flight)
        self._flight = None
        self.meter.suspensions[flight.batch.level] += 1
        scheduler = self._scheduler
        assert isinstance(scheduler, ClassScheduler)
        scheduler.service.ended(now)
        scheduler.note(now, self._suspended)
        self.next_event = now + self.cost.suspend_s  # then _decide

    def _resume(self, plan: Resume, now: float) -> None:
        flight = self._suspended.pop()
        flight.seconds += self.cost.resume_s
        flight.resumed = now
        flight.protected = plan.protected
        scheduler = self._scheduler
        assert isinstance(scheduler, ClassScheduler)
        batch = flight.batch
        scheduler.service.started(batch.level, now, batch.riding, plan.protected)
        self._run(flight, plan.budget)

    # -- decisions -----------------------------------------------------------------------------

    def _decide(self, now: float) -> None:
        self.next_event = math.inf
        scheduler = self._scheduler
        for request in self._arrived:
            scheduler.add(request)
        self._arrived.clear()
        preemptions = -1
        # A request that finds no block may lose its own: the step is empty, and as an engine with
        # work does not wait, the next one is put together at once.
        while self._flight is None and preemptions != scheduler.preemptions:
            preemptions = scheduler.preemptions
            if isinstance(scheduler, ClassScheduler):
                self._ask(scheduler, now)
            else:
                assert isinstance(scheduler, StockScheduler)
                self._compose(scheduler, now)

    def _compose(self, scheduler: StockScheduler, now: float) -> None:
        batch = scheduler.compose()
        if batch:
            if not batch.prefills:
                batch.steady = self._alike(batch)
            self._start(batch, now)

    def _ask(self, scheduler: ClassScheduler, now: float) -> None:
        view = scheduler.view(now, self._suspended)
        if not (view.suspended or view.ready):
            return
        plan = scheduler.decide(view)
        if isinstance(plan, Resume):
            self._resume(plan, now)
            return
        batch = scheduler.compose(plan)
        if not batch:
            scheduler.service.refused(plan.level, now)
            for cls in view.ready:
                if cls.level != plan.level:
                    batch = scheduler.compose(Run(cls.level))
                    if batch:
                        break
        if not batch and self._suspended:
            self._resume(Resume(), now)
            return
        if not batch:
            scheduler.service.stopped(now)
            return
        batch.riding = scheduler.riding(batch, self._suspended)
        scheduler.service.started(batch.level, now, batch.riding, batch.protected)
        if not batch.prefills and batch.budget is None:
            batch.steady = self._steady(scheduler, batch, view, plan)
        self._start(batch, now)

    def _alike(self, batch: Batch) -> int:
        """How many steps the decodes can do before one ends or blocks run out."""
        most = min([r.output - r.emitted for r in batch.decodes])
        # The blocks of the first step are taken already.
        return self._scheduler.blocks.steps(batch.decodes, most)

    def _steady(self, scheduler: ClassScheduler, batch: Batch, view: EngineView, plan: Plan) -> int:
        """For how many steps the policy stays with ``plan`` unless something arrives.

        Only the ages in the view change meanwhile. The policy is asked about the last step; if it
        would decide otherwise there, the first such step is found by halving.
        """
        most = self._alike(batch)
        if view.ride_limit or any(scheduler.decoding[batch.level + 1 :]):
            most = min(most, LEARNING_STEPS)
        others = [c for c in view.classes if c.has_work and c.level != batch.level]
        if most == 1 or not (others or view.suspended):
            return most
        seconds = self._table[batch.tokens] + self.cost.context_s * batch.context
        if self._same(scheduler, view, plan, (most - 1) * seconds):
            return most
        low, high = 1, most - 1  # of ``high`` + 1 steps the last one is decided otherwise
        while low < high:
            middle = (low + high + 1) // 2
            if self._same(scheduler, view, plan, (middle - 1) * seconds):
                low = middle
            else:
                high = middle - 1
        return low

    def _same(self, scheduler: ClassScheduler, view: EngineView, plan: Plan, later: float) -> bool:
        service = scheduler.service
        classes = tuple(
            [
                replace(
                    c,
                    starved=service.starved(c.level, later) if c.has_work else 0.0,
                    owed=service.owed(c.level, later),
                )
                for c in view.classes
            ]
        )
        suspended = tuple(
            [
                SuspendedView(s.level, s.starved + later, s.ran, s.yield_point)
                for s in view.suspended
            ]
        )
        aged = EngineView(classes, suspended, view.ride_limit)
        return scheduler.decide(aged) == plan
