# SPDX-License-Identifier: Apache-2.0
"""The engine's side of the protocol: raises the flag, runs nested steps over a suspended one."""

from __future__ import annotations

import queue
import time

from vllm.v1.engine import EngineCoreOutputs, EngineCoreRequestType
from vllm.v1.engine.core import EngineCore, EngineCoreProc

from vllm_qllm.engine.arrivals import Arrivals
from vllm_qllm.engine.calls import Item, Need, need_of
from vllm_qllm.engine.scheduler import PriorityScheduler
from vllm_qllm.engine.step import Step
from vllm_qllm.execution.flag import Flag
from vllm_qllm.execution.protocol import GIVE_UP, RunCommand, Suspended, deadline
from vllm_qllm.policy import Resume

# How often a suspended step looks for urgent requests whose grammar is still being compiled.
GRAMMAR_POLL_S = 0.01


class Controller:
    """Belongs to one EngineCore.

    Everything but ``_arrived`` and ``_called`` runs on the engine's thread.
    """

    def __init__(self, engine: EngineCore) -> None:
        scheduler = engine.scheduler
        assert isinstance(scheduler, PriorityScheduler)
        self._engine = engine
        self._scheduler = scheduler
        self._flag = Flag()
        # The step that is running; read by the IO thread.
        self._running: Step | None = None
        self._nested_outputs: list[dict[int, EngineCoreOutputs]] = []
        classes = len(scheduler.priority_config.classes)
        source = engine.input_queue if isinstance(engine, EngineCoreProc) else queue.Queue()
        level = scheduler.by_class.level
        self._arrivals = Arrivals(source, classes, level, self._arrived, self._called)
        self.yield_points = engine.model_executor.priority_attach(  # type: ignore[attr-defined]
            self._flag, classes, self.next_command, self.on_suspended
        )

    # -- arrivals ------------------------------------------------------------------------------

    def _arrived(self, level: int) -> None:
        step = self._running
        if step is None or not step.suspendable or step.protected:
            return
        if level < step.level:
            self._flag.raise_for(step.number)

    def _called(self, item: Item) -> None:
        """Let the running step stop for what is no request: see :mod:`vllm_qllm.engine.calls`."""
        step = self._running
        if step is None or not step.suspendable:
            return
        if item[0] == EngineCoreRequestType.ABORT:
            # Of some of its requests, a step ends in its own time.
            stops = step.request_ids.keys() <= set(item[1])
        else:
            # What only asks has the time that a protected slice takes.
            stops = not step.protected or need_of(item) is not Need.NOTHING or self._is_stopping()
        if stops:
            self._flag.raise_for(step.number)

    def _start(self, step: Step) -> None:
        self._running = step
        # An arrival between the engine's last look at its queue and the line above has raised
        # no flag for this step; one after it does. Looking now leaves no gap.
        if any(self._arrivals.pending[: step.level]):
            self._arrived(0)
        if self._arrivals.calls and step.suspendable and not step.protected:
            self._flag.raise_for(step.number)

    # -- the protocol --------------------------------------------------------------------------

    def next_command(self) -> RunCommand:
        """How to run the step that was scheduled last."""
        step = self._scheduler.flight.last
        step.resumed_at = time.monotonic()
        self._start(step)
        return RunCommand(step.number, step.lane, step.suspendable, deadline(step.budget))

    def on_suspended(self, suspended: Suspended) -> int:
        """Run nested steps until the policy resumes the suspended one.

        Returns:
            Its deadline, or GIVE_UP.
        """
        step = self._scheduler.flight.last
        assert step.number == suspended.number, (step, suspended)
        self._running = None
        # Lowered, or the step would stop at every yield point after this one. An arrival that
        # finds nothing running is not lost: _start looks at what is pending.
        self._flag.raise_for(0)
        by = next((c for c, n in enumerate(self._arrivals.pending[: step.level]) if n), None)
        self._scheduler.suspend(suspended.place, suspended.yield_point, by)
        plan = self._nest()
        self._scheduler.resume(plan)
        if plan is None:
            return GIVE_UP
        self._start(step)
        return deadline(plan.budget)

    def _nest(self) -> Resume | None:
        """How the suspended step is to go on; None if it is not."""
        scheduler = self._scheduler
        while True:
            need = Need.NO_REQUEST if self._is_stopping() else self._take_input()
            if need is not Need.NOTHING:
                return self._end_soonest(need)
            if scheduler.abandonment.unwanted(scheduler.flight.suspended[-1]):
                return None
            plan = scheduler.decide()
            if isinstance(plan, Resume):
                break
            scheduler.use_plan(plan)
            executed = self._step()
            if scheduler.abandonment.wanted:
                return None
            if not executed:
                plan = Resume()  # nothing of it can be scheduled before the suspended step ends
                break
        limit = scheduler.flight.suspended[-1].level
        if not plan.protected and scheduler.census.compiling(limit):
            return Resume(min(GRAMMAR_POLL_S, plan.budget or GRAMMAR_POLL_S))
        return plan

    def _end_soonest(self, need: Need) -> Resume | None:
        """How the suspended step ends as soon as it can: where it stands, or with nothing on top.

        Each step below it is asked when its turn comes.
        """
        step = self._scheduler.flight.suspended[-1]
        if self._scheduler.abandonment.may_end(step, losing=need is Need.NO_STEP):
            return None
        return Resume(protected=True)

    def _is_stopping(self) -> bool:
        # Told to drain, the engine goes on as before; told to abort, it does so between two steps.
        engine = self._engine
        if not isinstance(engine, EngineCoreProc) or engine.is_running():
            return False
        return bool(engine.vllm_config.shutdown_timeout == 0)

    def _step(self) -> bool:
        if isinstance(self._engine, EngineCoreProc):
            return self._engine._process_engine_step()
        outputs, executed = self._engine.step()
        self._nested_outputs.append(outputs)
        self._engine.post_step(executed)
        return executed

    # -- input and output ----------------------------------------------------------------------

    def _take_input(self) -> Need:
        """Handle what clients sent, up to a call that waits for the steps in flight to end.

        That call stays the first in the queue, where the engine finds it between two steps.

        Returns:
            What it needs.
        """
        engine = self._engine
        if not isinstance(engine, EngineCoreProc):
            return Need.NOTHING
        while (item := self._arrivals.first()) is not None:
            need = need_of(item)
            if need is not Need.NOTHING:
                return need
            engine._handle_client_request(*self._arrivals.queue.get_nowait())
        return Need.NOTHING

    def step_in_process(self) -> tuple[dict[int, EngineCoreOutputs], bool]:
        """``EngineCore.step`` for an engine without an output queue: nested outputs come first."""
        outputs, executed = self._engine.step()
        nested, self._nested_outputs = self._nested_outputs, []
        for later in (*nested[1:], outputs) if nested else ():
            for client, more in later.items():
                first = nested[0].setdefault(client, more)
                if first is not more:
                    first.outputs.extend(more.outputs)
                    first.scheduler_stats = more.scheduler_stats or first.scheduler_stats
        return (nested[0] if nested else outputs), executed

    def close(self) -> None:
        """Release the shared memory; no step is suspended from here on."""
        self._running = None
        self._flag.close()
