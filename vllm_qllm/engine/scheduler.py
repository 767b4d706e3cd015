# SPDX-License-Identifier: Apache-2.0
"""The scheduler: hold back what the plan leaves out, let vLLM schedule, restore.

vLLM's own ``schedule()`` does all the work on the requests left in ``running`` and visible in
``waiting``. A request that is held back stays admitted and keeps its KV blocks (it is parked in
place); only a shortage of blocks for more urgent work takes them away.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from vllm.v1.core.kv_cache_manager import KVCacheBlocks
from vllm.v1.core.sched.interface import PauseState
from vllm.v1.core.sched.output import GrammarOutput, SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine import EngineCoreOutputs
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus

from vllm_qllm.config import PriorityConfig, carried
from vllm_qllm.engine.abandonment import Abandonment
from vllm_qllm.engine.accounting import Accounting
from vllm_qllm.engine.class_queue import ClassQueue
from vllm_qllm.engine.cuda_graphs import captured_tokens
from vllm_qllm.engine.decode_cost import DecodeCost
from vllm_qllm.engine.encoder_guard import EncoderGuard
from vllm_qllm.engine.grammars import Grammars
from vllm_qllm.engine.kv_guard import KVGuard
from vllm_qllm.engine.load import LoadMeter, is_decoding
from vllm_qllm.engine.parking import Parking
from vllm_qllm.engine.programs import Programs
from vllm_qllm.engine.riders import Riders
from vllm_qllm.engine.step import Step
from vllm_qllm.engine.step_room import StepRoom
from vllm_qllm.kv.connector import SpillConnector
from vllm_qllm.kv.copies import Copies
from vllm_qllm.kv.spill import Spill
from vllm_qllm.metrics.location import pulse_path, store_path
from vllm_qllm.metrics.pulse import Pulse
from vllm_qllm.metrics.recorder import Recorder
from vllm_qllm.policy import (
    EngineView,
    Plan,
    Policy,
    Resume,
    Run,
    resolve,
    riding,
)
from vllm_qllm.timeline.location import ring_path
from vllm_qllm.timeline.log import open_log


class PriorityScheduler(Scheduler):
    """vLLM's scheduler with classes, a policy, and suspended steps.

    Attributes:
        in_flight: steps that are scheduled and not completed, outermost first. Steps nest, so the
            last one is the one that runs and all before it are suspended.
    """

    max_num_active_reqs: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        data = carried(self.vllm_config)
        assert data is not None, "chosen by vllm_qllm.apply only"
        self.priority_config = PriorityConfig.from_dict(data)
        self.priority_policy: Policy = resolve(self.priority_config)
        classes = len(self.priority_config.classes)
        self.waiting: ClassQueue = ClassQueue(self.level, classes)
        self.kv_holding_waiting: ClassQueue = ClassQueue(self.level, classes)
        self.in_flight: list[Step] = []
        self.decode_cost = DecodeCost()
        self.load = LoadMeter(self)
        connector = self.connector
        spill = connector.spill if isinstance(connector, SpillConnector) else None
        self.spill: Spill | None = spill if spill and spill.slots.count else None
        self.parking = Parking(self)
        self.programs = Programs(self)
        self.abandonment = Abandonment(self)
        self.kv_guard = KVGuard(self)
        self.encoder_guard = EncoderGuard(self)
        self.riders = Riders(self)
        self.grammars = Grammars(self)
        recorder = Recorder(self.priority_config, store_path())
        log = open_log(self.priority_config, ring_path())
        self.accounting = Accounting(self, recorder, Pulse(pulse_path()), log)
        self._plan: Run | None = None
        self._held: list[Request] = []
        self._step_numbers = itertools.count(1)
        # A step takes the lane of its class; what cannot be suspended never needs a spare one.
        self.in_step = self.priority_config.yield_points != "none"
        self._captured_tokens = captured_tokens(self.vllm_config)

    # -- classes and views ---------------------------------------------------------------------

    def level(self, request: Request) -> int:
        """Class of a request; 0 is the most urgent."""
        level: int | None = getattr(request, "priority_level", None)
        if level is None:  # asked for several times a step, so it is worked out once
            level = request.priority_level = self.priority_config.level(request.priority)  # type: ignore[attr-defined]
        return level

    @property
    def suspended(self) -> list[Step]:
        """The suspended steps, outermost first; all work nests on the last one."""
        return [step for step in self.in_flight if step.suspended_at is not None]

    @property
    def suspended_ids(self) -> set[str]:
        """The requests that are part of a suspended step."""
        return {request_id for step in self.suspended for request_id in step.request_ids}

    def view(self, now: float) -> EngineView:
        """What the policy sees at ``now`` (``time.monotonic()`` seconds)."""
        classes = self.load.classes(now)
        view = EngineView(classes, tuple(step.view(now) for step in self.suspended))
        return replace(view, ride_limit=self.riders.limit(view)) if view.ready else view

    def decide(self) -> Plan:
        """Ask the policy, and check its answer.

        Raises:
            RuntimeError: an answer that cannot be carried out.
        """
        view = self.view(time.monotonic())
        plan, limit = self.priority_policy.plan(view), view.limit
        valid = isinstance(plan, (Run, Resume)) and (
            plan.budget is None or (isinstance(plan.budget, (int, float)) and plan.budget >= 0)
        )
        if isinstance(plan, Run):
            valid &= isinstance(plan.level, int) and 0 <= plan.level < limit
            valid &= isinstance(plan.riders, int) and plan.riders >= 0
        elif not view.suspended:
            valid = False
        if not valid:
            raise RuntimeError(
                f"priority policy {self.priority_config.policy!r} answered {plan!r}; allowed: Run "
                f"of a level below {limit}" + (" or Resume" if view.suspended else "")
            )
        return plan

    # -- scheduling ----------------------------------------------------------------------------

    def schedule(self, throttle_prefills: bool = False) -> SchedulerOutput:
        """Schedule one step by the plan of the policy (or by the one set by ``use_plan``)."""
        plan, self._plan = self._plan, None
        now = time.monotonic()
        self.programs.expire(now)
        self.grammars.expire(now)
        self.abandonment.begin()
        if plan is None:
            plan = self._plan_between_steps()
        output = self._schedule_by(plan, throttle_prefills)
        if output.total_num_scheduled_tokens or (self.suspended and self.abandonment.wanted):
            return output
        # The leading class could not be given a block or a slot: let the others go on, the most
        # urgent first. An output that is not used hands on what it announces.
        now = time.monotonic()
        self.load.refused(plan.level, now)
        for cls in self.view(now).ready:
            level = cls.level
            if level == plan.level:
                continue
            self.in_flight.pop()
            unused, output = output, self._schedule_by(Run(level), throttle_prefills)
            output.finished_req_ids |= unused.finished_req_ids
            output.preempted_req_ids = unused.preempted_req_ids | output.preempted_req_ids
            output.free_encoder_mm_hashes = (
                unused.free_encoder_mm_hashes + output.free_encoder_mm_hashes
            )
            if isinstance(unused.kv_connector_metadata, Copies):
                assert isinstance(output.kv_connector_metadata, Copies)
                output.kv_connector_metadata.follow(unused.kv_connector_metadata)
            if output.total_num_scheduled_tokens:
                break
        return output

    def use_plan(self, plan: Run) -> None:
        """Let the next ``schedule()`` follow ``plan`` without asking the policy."""
        self._plan = plan

    def _plan_between_steps(self) -> Run:
        if not self.load.any_work():
            return Run(0)  # nothing but finished requests to tell the workers about
        plan = self.decide()
        assert isinstance(plan, Run)
        return plan

    def _schedule_by(self, plan: Run, throttle_prefills: bool) -> SchedulerOutput:
        room = StepRoom(self, plan.level)
        chosen, self._held = self._split_running(plan, room)
        self.running = chosen
        self._show(plan.level)
        slots: int = self.max_num_active_reqs
        # Held-back requests of the plan's own classes keep their slots; less urgent ones do not
        # stand in the way, nor streamed ones that wait for their client: the model runner holds
        # only the requests of one step.
        self.max_num_active_reqs = slots - sum(self.level(r) == plan.level for r in self._held)
        self.max_num_active_reqs += self.num_waiting_for_streaming_input - room.sessions
        try:
            output = super().schedule(throttle_prefills)
            if output.total_num_scheduled_tokens:
                self.parking.shrink(plan.level)
        finally:
            self.max_num_active_reqs = slots
            self._show(None)
            self.running = self.running + self._held
            self._held = []
        step = self._describe(plan, output)
        self.in_flight.append(step)
        step.resumed_at = now = time.monotonic()
        self.load.started(step, now, plan.protected)
        self.parking.resumed(output)
        self.accounting.scheduled(step, now)
        return output

    def _show(self, level: int | None) -> None:
        self.waiting.show(level)
        self.kv_holding_waiting.show(level)

    def _split_running(self, plan: Run, room: StepRoom) -> tuple[list[Request], list[Request]]:
        """Requests that vLLM may schedule now, those of the leading class first, and the others."""
        admitted: list[Request] = []
        candidates: list[Request] = []
        held: list[Request] = []
        suspended = self.suspended_ids
        for request in self.running:
            if request.request_id in suspended:
                held.append(request)
            elif self.level(request) == plan.level:
                admitted.append(request)
            elif plan.riders and self.level(request) > plan.level and is_decoding(request):
                candidates.append(request)
            else:
                held.append(request)
        leading = room.lead(self.grammars.affordable(admitted, leading=True))
        affordable = self.grammars.affordable(candidates, leading=False)
        riders = self.riders.choose(plan, leading, affordable, room)
        chosen = {*leading, *riders}
        others = [r for r in admitted + candidates if r not in chosen]
        return leading + riders, others + held

    def _describe(self, plan: Run, output: SchedulerOutput) -> Step:
        scheduled = output.num_scheduled_tokens
        requests = [self.requests[request_id] for request_id in scheduled]
        level = min(map(self.level, requests), default=0)
        suspendable = self.in_step and plan.suspendable and level > 0
        suspendable &= output.total_num_scheduled_tokens > self._captured_tokens
        # No prompt token in the step: every row is one decoded token.
        decode = all(n == 1 for n in scheduled.values()) and all(
            r.num_output_tokens for r in requests
        )
        return Step(
            number=next(self._step_numbers),
            level=level,
            lane=level if suspendable else 0,
            suspendable=suspendable,
            budget=plan.budget if suspendable else None,
            protected=plan.protected,
            request_ids=dict(scheduled),
            output=output,
            unwritten_blocks=self.kv_guard.written_by(requests, scheduled)
            | self.parking.restored_by(output)
            if suspendable
            else frozenset(),
            riding=self._riding(requests, None if decode else output.total_num_scheduled_tokens),
            restoring=self.parking.restoring(output),
            decode_rows=len(scheduled) if decode and scheduled else None,
        )

    def _riding(self, requests: list[Request], step_tokens: int | None) -> dict[int, float]:
        """For each class but the first in a step of ``requests``, what of it is service of it."""
        rows = Counter(map(self.level, requests))
        ride = sorted(rows)[1:]
        if not ride:
            return {}
        decodes = Counter(self.level(r) for r in self.running if r.num_output_tokens)
        return {level: riding(rows[level], decodes[level], step_tokens) for level in ride}

    # -- suspended steps -----------------------------------------------------------------------

    def _get_local_prefix_cache_hit(self, request: Request) -> tuple[KVCacheBlocks, int, int, bool]:
        """vLLM's lookup, without blocks that a suspended step has only half written."""
        return self.kv_guard.without_unwritten(*super()._get_local_prefix_cache_hit(request))

    @property
    def held_requests(self) -> list[Request]:
        """Requests that the step which is put together holds back, suspended ones left out."""
        suspended = self.suspended_ids
        return [r for r in self._held if r.request_id not in suspended]

    def held_victims(self, level: int) -> list[Request]:
        """Held-back requests whose blocks class ``level`` may take, first to go first."""
        cap = self.priority_config.progress_cap
        victims = [
            r
            for r in self.held_requests
            if r.status == RequestStatus.RUNNING and self.level(r) > level and self.may_lose(r)
        ]

        def order(request: Request) -> tuple[bool, int, float, float]:
            nearly_done = request.num_output_tokens >= cap * request.max_tokens
            price = self.parking.price(request)
            return (nearly_done, -self.level(request), price, -request.arrival_time)

        return sorted(victims, key=order)

    def may_lose(self, request: Request) -> bool:
        """Whether a request may lose its KV blocks to more urgent ones once more."""
        lost = request.num_preemptions - self.parking.shrunk(request)
        return lost < self.priority_config.max_preemptions

    def take_blocks(self, victim: Request) -> None:
        """Preempt a held-back request: its blocks go to more urgent work, it waits again."""
        self._held.remove(victim)
        self._preempt_request(victim, time.monotonic())

    def finish_requests(
        self, request_ids: str | Iterable[str] | None, finished_status: RequestStatus
    ) -> list[Request]:
        """Finish requests, those of suspended steps when their step completes.

        The latter are not among the returned ones: whoever asks while a step is suspended is a
        client that has gone away and needs no answer.
        """
        if not self.suspended:
            return self._finish(request_ids, finished_status)
        if request_ids is None:
            request_ids = list(self.requests)
        elif isinstance(request_ids, str):
            request_ids = (request_ids,)
        now = []
        for request_id in request_ids:
            step = next((s for s in self.suspended if request_id in s.request_ids), None)
            if step is None:
                now.append(request_id)
            else:
                step.pending_aborts.append((request_id, finished_status))
        return self._finish(now, finished_status)

    def _finish(
        self, request_ids: str | Iterable[str] | None, status: RequestStatus
    ) -> list[Request]:
        finished = super().finish_requests(request_ids, status)
        for request in finished:
            self.accounting.finished(request, time.monotonic())
        return finished

    def add_request(self, request: Request) -> None:
        """Add a request, or the next part of a streamed one."""
        self.programs.arrived(request)
        self.accounting.arrived(request)
        super().add_request(request)
        self.accounting.progressed(time.monotonic())

    def _free_request(self, request: Request, *args: Any, **kwargs: Any) -> Any:
        self.programs.finished(request, time.monotonic())
        self.parking.finished(request)
        self.abandonment.finished(request)
        return super()._free_request(request, *args, **kwargs)

    def _preempt_request(self, request: Request, *args: Any, **kwargs: Any) -> None:
        computed, spilled = self.parking.preempting(request)
        self.kv_guard.forget_uncomputed(request)
        super()._preempt_request(request, *args, **kwargs)
        self.accounting.preempted(request, computed, spilled)

    def get_grammar_bitmask(self, scheduler_output: SchedulerOutput) -> GrammarOutput | None:
        """vLLM's bitmask, in memory of its own: a nested step fills the shared one again."""
        grammar = super().get_grammar_bitmask(scheduler_output)
        step = self._step_of(scheduler_output)
        if grammar is not None and step is not None and step.suspendable:
            grammar.grammar_bitmask = grammar.grammar_bitmask.copy()
        return grammar

    def _step_of(self, output: SchedulerOutput) -> Step | None:
        """The step in flight that ``output`` is of; None if this scheduler has not made it."""
        return next((step for step in self.in_flight if step.output is output), None)

    def update_from_output(
        self, scheduler_output: SchedulerOutput, model_runner_output: ModelRunnerOutput
    ) -> dict[int, EngineCoreOutputs]:
        """Apply aborts that waited for this step to complete, then its results.

        Steps nest, so that it is the last one in flight; those of an engine that has several
        batches in flight complete in any order.
        """
        step = self._step_of(scheduler_output)
        if step is None:
            return super().update_from_output(scheduler_output, model_runner_output)
        self.in_flight.remove(step)
        ran = step.ran + time.monotonic() - step.resumed_at
        computed = self.abandonment.ending(step) if step.abandoned else {}
        for request_id, status in step.pending_aborts:
            self._finish(request_id, status)
        requests = [self.requests[i] for i in step.request_ids if i in self.requests]
        self.grammars.note_failed()
        outputs = super().update_from_output(scheduler_output, model_runner_output)
        self.grammars.charge(requests, outputs)
        self.abandonment.ended(step, computed)
        self.parking.completed(step, ran, model_runner_output.kv_connector_output)
        now = time.monotonic()
        if step.decode_rows and not step.abandoned:
            self.decode_cost.observe(step.decode_rows, ran)
        self.load.ended(now)
        self.accounting.completed(step, requests, now)
        return outputs

    def set_pause_state(self, pause_state: PauseState) -> None:
        """Pause, or go on: an engine that is paused does not stand still by itself."""
        super().set_pause_state(pause_state)
        self.accounting.progressed(time.monotonic())

    def _build_kv_connector_meta(self, connector: Any, output: SchedulerOutput) -> Any:
        """What the workers copy before this step."""
        self.parking.copy_ahead(output)
        return super()._build_kv_connector_meta(connector, output)

    def reset_prefix_cache(self, *args: Any, **kwargs: Any) -> bool:
        """Forget cached prefixes, also what is on the host unless a suspended step may read it."""
        self.programs.release_all()
        try:
            return bool(super().reset_prefix_cache(*args, **kwargs))
        finally:
            if not self.suspended:
                self.parking.forget_all()

    def shutdown(self) -> None:
        """Release what the scheduler holds outside of this process's memory."""
        super().shutdown()
        self.accounting.close()
