# SPDX-License-Identifier: Apache-2.0
"""The scheduler: hold back what the plan leaves out, let vLLM schedule, restore.

vLLM's own ``schedule()`` does all the work on the requests left in ``running`` and visible in
``waiting``. A request that is held back stays admitted and keeps its KV blocks (it is parked in
place); only a shortage of blocks for more urgent work takes them away.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from vllm.v1.core.sched.interface import PauseState
from vllm.v1.core.sched.output import GrammarOutput, SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine import EngineCoreOutputs
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus

from vllm_qllm.config import PriorityConfig, carried
from vllm_qllm.engine.abandonment import Abandonment
from vllm_qllm.engine.accounting import Accounting
from vllm_qllm.engine.blocks import Blocks, Hit
from vllm_qllm.engine.census import Census, is_decoding
from vllm_qllm.engine.cuda_graphs import captured_tokens
from vllm_qllm.engine.decode_cost import DecodeCost
from vllm_qllm.engine.encoder_guard import EncoderGuard
from vllm_qllm.engine.flight import Flight
from vllm_qllm.engine.grammars import Grammars
from vllm_qllm.engine.kv_guard import KVGuard
from vllm_qllm.engine.load import LoadMeter
from vllm_qllm.engine.parking import Parking
from vllm_qllm.engine.programs import Programs
from vllm_qllm.engine.progress import ProgressTable
from vllm_qllm.engine.requests import Requests
from vllm_qllm.engine.riders import Riders
from vllm_qllm.engine.step import Step
from vllm_qllm.engine.step_room import StepRoom
from vllm_qllm.engine.victims import Victims
from vllm_qllm.execution.protocol import Place
from vllm_qllm.kv.connector import SpillConnector
from vllm_qllm.kv.copies import Copies
from vllm_qllm.metrics.location import pulse_path, store_path
from vllm_qllm.metrics.pulse import Pulse
from vllm_qllm.metrics.recorder import Recorder
from vllm_qllm.policy import EngineView, Plan, Policy, Resume, Run, resolve, riding
from vllm_qllm.policy.rules import checked
from vllm_qllm.timeline.location import ring_path
from vllm_qllm.timeline.log import open_log


class PriorityScheduler(Scheduler):
    """vLLM's scheduler with classes, a policy, and suspended steps.

    Builds what it is made of, in the order of who needs whom, and calls it in the order of a step.

    Attributes:
        flight: steps that are scheduled and not completed.
        by_class: the requests.
    """

    max_num_active_reqs: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        data = carried(self.vllm_config)
        assert data is not None, "chosen by vllm_qllm.apply only"
        self.priority_config = config = PriorityConfig.from_dict(data)
        self.priority_policy: Policy = resolve(config)
        # What cannot be suspended never needs a spare lane.
        self.in_step = config.yield_points != "none"
        self._captured_tokens = captured_tokens(self.vllm_config)
        # -- what there is
        self.flight = flight = Flight(len(config.classes))
        self.by_class = requests = Requests(self, config, flight)
        self.blocks = blocks = Blocks(self)
        self.census = Census(requests, flight, blocks)
        self.load = LoadMeter(config.classes, requests, self.census)
        self.decode_cost = DecodeCost()
        # -- what is told
        self.progress = ProgressTable()
        recorder = Recorder(config, store_path())
        log = open_log(config, ring_path())
        self.accounting = Accounting(flight, self.progress, recorder, log)
        self._pulse = Pulse(pulse_path())
        # -- who gets KV blocks, and from whom
        connector = self.connector
        spill = connector.spill if isinstance(connector, SpillConnector) else None
        self.spill = spill if spill and spill.slots.count else None
        self.parking = Parking(requests, blocks, self.accounting, self.spill, self.block_size)
        self.victims = Victims(config, requests, blocks, self.parking.price)
        self.programs = Programs(config, self.priority_policy, requests, blocks.manager)
        self.abandonment = Abandonment(requests, flight, blocks, self.victims, self.accounting)
        self.kv_guard = KVGuard(
            config.reserved_kv,
            requests,
            blocks,
            self.victims,
            self.programs,
            self.abandonment,
            self.load.owed,
        )
        if not self.is_encoder_decoder:
            EncoderGuard(self.encoder_cache_manager, requests)
        # -- who is in a step
        self.grammars = Grammars(self, config, requests)
        self.riders = Riders(
            config.ride_slowdown,
            self.max_num_scheduled_tokens,
            self.num_spec_tokens,
            requests,
            self.census,
            blocks,
            self.kv_guard,
            self.decode_cost,
            self.parking.on_host,
        )
        self._plan: Run | None = None

    # -- the policy ----------------------------------------------------------------------------

    def view(self, now: float) -> EngineView:
        """What the policy sees at ``now`` (``time.monotonic()`` seconds)."""
        suspended = tuple(step.view(now) for step in self.flight.suspended)
        view = EngineView(self.load.classes(now), suspended)
        return replace(view, ride_limit=self.riders.limit(view)) if view.ready else view

    def decide(self) -> Plan:
        """Ask the policy, and check its answer.

        Raises:
            PlanError: an answer that cannot be carried out.
        """
        view = self.view(time.monotonic())
        return checked(self.priority_policy.plan(view), view, self.priority_config.policy)

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
        if output.total_num_scheduled_tokens or (self.flight.suspended and self.abandonment.wanted):
            return output
        # The leading class could not be given a block or a slot: let the others go on, the most
        # urgent first. An output that is not used hands on what it announces.
        now = time.monotonic()
        self.load.refused(plan.level, now)
        for cls in self.view(now).ready:
            level = cls.level
            if level == plan.level:
                continue
            self.flight.end(self.flight.last)
            self.census.outdated()
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
        room = StepRoom(self, self.by_class, plan.level, self.parking.on_host)
        self.running, held = self._split_running(plan, room)
        self.by_class.held = held
        self.by_class.show(plan.level)
        slots: int = self.max_num_active_reqs
        # Held-back requests of the plan's own classes keep their slots; less urgent ones do not
        # stand in the way, nor streamed ones that wait for their client: the model runner holds
        # only the requests of one step.
        self.max_num_active_reqs = slots - sum(self.by_class.level(r) == plan.level for r in held)
        self.max_num_active_reqs += self.num_waiting_for_streaming_input - room.sessions
        try:
            output = super().schedule(throttle_prefills)
            if output.total_num_scheduled_tokens:
                self.victims.trim(plan.level)
        finally:
            self.max_num_active_reqs = slots
            self.by_class.show(None)
            self.running = self.running + self.by_class.held
            self.by_class.held = []
        step = self._describe(plan, output)
        self.flight.start(step)
        self.census.outdated()
        step.resumed_at = now = time.monotonic()
        self.load.started(step, now, plan.protected)
        self.parking.resumed(output)
        self.accounting.scheduled(step, now)
        self._tell(now)
        # While a step is in flight, requests outside it wait.
        self._tell_kv(now)
        return output

    def _split_running(self, plan: Run, room: StepRoom) -> tuple[list[Request], list[Request]]:
        """Requests that vLLM may schedule now, those of the leading class first, and the others."""
        admitted: list[Request] = []
        candidates: list[Request] = []
        held: list[Request] = []
        suspended, level_of = self.flight.suspended_ids, self.by_class.level
        for request in self.running:
            level = level_of(request)
            if request.request_id in suspended:
                held.append(request)
            elif level == plan.level:
                admitted.append(request)
            elif plan.riders and level > plan.level and is_decoding(request):
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
        level = min(map(self.by_class.level, requests), default=0)
        suspendable = self.in_step and plan.suspendable and level > 0
        suspendable &= output.total_num_scheduled_tokens > self._captured_tokens
        lane = self.flight.lane(level) if suspendable else None
        suspendable = lane is not None
        # No prompt token in the step: every row is one decoded token.
        decode = all(n == 1 for n in scheduled.values()) and all(
            r.num_output_tokens for r in requests
        )
        unwritten = self.blocks.written_by(requests, scheduled) | self.parking.restored_by(output)
        return Step(
            number=self.flight.next_number(),
            level=level,
            lane=lane or 0,
            suspendable=suspendable,
            budget=plan.budget if suspendable else None,
            protected=plan.protected,
            request_ids=dict(scheduled),
            output=output,
            unwritten_blocks=unwritten if suspendable else frozenset(),
            riding=self._riding(requests, None if decode else output.total_num_scheduled_tokens),
            restoring=self.parking.restoring(output),
            decode_rows=len(scheduled) if decode and scheduled else None,
        )

    def _riding(self, requests: list[Request], step_tokens: int | None) -> dict[int, float]:
        """For each class but the first in a step of ``requests``, what of it is service of it."""
        rows = Counter(map(self.by_class.level, requests))
        ride = sorted(rows)[1:]
        if not ride:
            return {}
        level = self.by_class.level
        decodes = Counter(level(r) for r in self.running if r.num_output_tokens)
        return {c: riding(rows[c], decodes[c], step_tokens) for c in ride}

    # -- suspended steps -----------------------------------------------------------------------

    def suspend(self, place: Place, yield_point: int, by: int | None) -> Step:
        """The step that runs stopped.

        Args:
            place: where in the model.
            yield_point: how many it has met.
            by: the class that it stopped for; None: its time slice has ended.
        """
        step, now = self.flight.last, time.monotonic()
        step.suspend(now, yield_point)
        self.census.outdated()
        self.load.ended(now)
        self.accounting.suspended(step, place, by, now)
        self._tell(now)
        return step

    def resume(self, plan: Resume | None) -> Step:
        """The step that was suspended last goes on by ``plan``; None: it is given up."""
        step, now = self.flight.last, time.monotonic()
        self.accounting.resumed(step, step.resume(now), now)
        step.protected = plan is not None and plan.protected
        # Without a budget it is protected for the sake of a call, which is not its class's debt.
        charged = plan is not None and plan.protected and plan.budget is not None
        self.census.outdated()
        self.load.started(step, now, charged)
        self._tell(now)
        if plan is None:
            self.abandonment.give_up(step)
        return step

    def _get_local_prefix_cache_hit(self, request: Request) -> Hit:
        """vLLM's lookup, without blocks that a suspended step has only half written."""
        hit = super()._get_local_prefix_cache_hit(request)
        return self.blocks.without(hit, self.flight.unwritten_blocks)

    def finish_requests(
        self, request_ids: str | Iterable[str] | None, finished_status: RequestStatus
    ) -> list[Request]:
        """Finish requests, those of suspended steps when their step completes.

        The latter are not among the returned ones: whoever asks while a step is suspended is a
        client that has gone away and needs no answer.
        """
        if not self.flight.suspended:
            return self._finish(request_ids, finished_status)
        if request_ids is None:
            request_ids = list(self.requests)
        elif isinstance(request_ids, str):
            request_ids = (request_ids,)
        now = []
        for request_id in request_ids:
            step = self.flight.suspending(request_id)
            if step is None:
                now.append(request_id)
            else:
                step.pending_aborts.append((request_id, finished_status))
        return self._finish(now, finished_status)

    def _finish(
        self, request_ids: str | Iterable[str] | None, status: RequestStatus
    ) -> list[Request]:
        finished = super().finish_requests(request_ids, status)
        self.census.outdated()
        for request in finished:
            self.accounting.finished(request, time.monotonic())
        return finished

    def add_request(self, request: Request) -> None:
        """Add a request, or the next part of a streamed one."""
        self.programs.arrived(request)
        self.accounting.arrived(request, self.by_class.level(request))
        super().add_request(request)
        self.census.outdated()
        self._beat(time.monotonic())

    def _free_request(self, request: Request, *args: Any, **kwargs: Any) -> Any:
        self.programs.finished(request, time.monotonic())
        self.parking.finished(request)
        self.victims.finished(request)
        self.census.outdated()
        return super()._free_request(request, *args, **kwargs)

    def _preempt_request(self, request: Request, *args: Any, **kwargs: Any) -> None:
        computed, spilled = self.parking.preempting(request)
        self.blocks.forget_uncomputed(request)
        super()._preempt_request(request, *args, **kwargs)
        self.census.outdated()
        self.accounting.preempted(request, self.by_class.level(request), computed, spilled)

    def get_grammar_bitmask(self, scheduler_output: SchedulerOutput) -> GrammarOutput | None:
        """vLLM's bitmask, in memory of its own: a nested step fills the shared one again."""
        grammar = super().get_grammar_bitmask(scheduler_output)
        step = self.flight.of(scheduler_output)
        if grammar is not None and step is not None and step.suspendable:
            grammar.grammar_bitmask = grammar.grammar_bitmask.copy()
        return grammar

    def update_from_output(
        self, scheduler_output: SchedulerOutput, model_runner_output: ModelRunnerOutput
    ) -> dict[int, EngineCoreOutputs]:
        """Apply aborts that waited for this step to complete, then its results.

        Steps nest, so that it is the last one in flight; those of an engine that has several
        batches in flight complete in any order.
        """
        step = self.flight.of(scheduler_output)
        if step is None:
            outputs = super().update_from_output(scheduler_output, model_runner_output)
            self.census.outdated()
            return outputs
        self.flight.end(step)
        self.census.outdated()
        ran = step.ran + time.monotonic() - step.resumed_at
        computed = self.abandonment.ending(step) if step.abandoned else {}
        for request_id, status in step.pending_aborts:
            self._finish(request_id, status)
        requests = self.by_class.living(step.request_ids)
        self.grammars.note_failed()
        outputs = super().update_from_output(scheduler_output, model_runner_output)
        self.grammars.charge(requests, outputs)
        self.abandonment.ended(step, computed)
        self.parking.completed(step, ran, model_runner_output.kv_connector_output)
        now = time.monotonic()
        if step.decode_rows and not step.abandoned:
            self.decode_cost.observe(step.decode_rows, ran)
        self.accounting.completed(step, requests, now)
        self.census.outdated()
        self.load.ended(now)
        self._tell(now)
        if not self.running:
            self._tell_kv(now)
        return outputs

    def _tell(self, now: float) -> None:
        """Let others see what there is."""
        self.accounting.queues(self.census.take(), now)
        self._beat(now)

    def _tell_kv(self, now: float) -> None:
        """Let others see what KV the requests hold that are in no step."""
        self.accounting.kv(self.census.parked(), self.parking.spilled_bytes(), now)

    def _beat(self, now: float) -> None:
        """Note that the engine goes on, and whether it is to go on from here."""
        # A paused engine, and one whose requests all wait for something else, is not at work.
        busy = any(step.request_ids for step in self.flight) or (
            self.get_num_unfinished_requests() > 0 and self.load.any_work()
        )
        self._pulse.beat(now, busy)

    def set_pause_state(self, pause_state: PauseState) -> None:
        """Pause, or go on: an engine that is paused does not stand still by itself."""
        super().set_pause_state(pause_state)
        self._beat(time.monotonic())

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
            if not self.flight.suspended:
                self.parking.forget_all()

    def shutdown(self) -> None:
        """Release what the scheduler holds outside of this process's memory."""
        super().shutdown()
        self.accounting.close()
        self._pulse.close()
