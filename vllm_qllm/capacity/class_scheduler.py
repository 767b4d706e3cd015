# SPDX-License-Identifier: Apache-2.0
"""The plugin's scheduling: a policy of this package decides which class leads a step.

The policy object, the records it sees, the account of each class's time and the estimate of
what riders cost are those of the engine. What the engine does with the answer
(``engine/scheduler.py``, ``engine/kv_guard.py``) is written down here a second time, for counted
blocks and simulated time.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence

from vllm_qllm.capacity.batch import Batch
from vllm_qllm.capacity.class_queue import ClassQueue
from vllm_qllm.capacity.errors import CapacityError
from vllm_qllm.capacity.flight import Flight
from vllm_qllm.capacity.request import Request
from vllm_qllm.capacity.scheduler import Scheduler
from vllm_qllm.capacity.server import Server
from vllm_qllm.engine.decode_cost import DecodeCost
from vllm_qllm.policy import ClassView, EngineView, Plan, Run, Service, resolve, riding
from vllm_qllm.policy.rules import PlanError, checked, riders_beside_prompts, victim_order


class ClassScheduler(Scheduler):
    """Composes the steps that a policy asks for."""

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        config = server.priority
        self.config = config
        self.policy = resolve(config)
        self.suspendable = config.yield_points != "none"
        self.decode_cost = DecodeCost()
        self.queues = [ClassQueue() for _ in config.classes]
        self.service = Service(config.classes)
        # As the engine counts: of all blocks, vLLM's own included.
        self._reserved = int(config.reserved_kv * (server.kv_blocks + 1))

    def add(self, request: Request) -> None:
        """Queue it in its class."""
        self.queues[request.level].push(request)

    def waiting(self) -> int:
        """Requests that are not admitted."""
        return sum(map(len, self.queues))

    # -- the policy ----------------------------------------------------------------------------

    def view(self, now: float, suspended: Sequence[Flight] = ()) -> EngineView:
        """What the policy sees."""
        service, work = self.service, []
        leader = -1
        limit = suspended[-1].batch.level if suspended else len(self.queues)
        candidates = 0
        for level, queue in enumerate(self.queues):
            waiting = len(queue)
            prefilling = len(self.prefilling[level])
            decoding = len(self.decoding[level])
            work.append((waiting, prefilling, decoding))
            if leader >= 0:
                candidates += decoding
            elif level < limit and (waiting or prefilling or decoding):
                leader = level
        self.note(now, suspended)
        classes = tuple(
            [
                ClassView(
                    level,
                    *counts,
                    service.starved(level) if any(counts) else 0.0,
                    service.owed(level),
                )
                for level, counts in enumerate(work)
            ]
        )
        riders = self._ride_limit(classes[leader], candidates) if leader >= 0 and candidates else 0
        return EngineView(classes, tuple([f.view(f.batch.level, now) for f in suspended]), riders)

    def note(self, now: float, suspended: Sequence[Flight]) -> None:
        """Tell the service which work there is, that of suspended steps included."""
        prompts = [bool(q or p) for q, p in zip(self.queues, self.prefilling, strict=True)]
        decodes = [bool(rows) for rows in self.decoding]
        for flight in suspended:
            for request, _ in flight.batch.prefills:
                prompts[request.level] = True
            for request in flight.batch.decodes:
                decodes[request.level] = True
        self.service.note(list(zip(prompts, decodes, strict=True)), now)

    def riding(self, batch: Batch, suspended: Sequence[Flight] = ()) -> dict[int, float]:
        """For each class whose decodes ride in ``batch``, what of its time is service of it."""
        rows = Counter([r.level for r in batch.decodes if r.level != batch.level])
        if not rows:
            return {}
        held = itertools.chain(*self.decoding, *(f.batch.decodes for f in suspended))
        others = Counter([r.level for r in held])
        tokens = batch.tokens if batch.prefills else None
        return {level: riding(n, n + others[level], tokens) for level, n in rows.items()}

    def _ride_limit(self, leader: ClassView, candidates: int) -> int:
        slowdown = self.config.ride_slowdown
        if leader.waiting or leader.prefilling:
            budget = self.server.token_budget
            tokens = sum(r.missing for r in self.prefilling[leader.level])
            if self.queues[leader.level]:
                first = self.queues[leader.level].peek()
                tokens += first.prompt + first.emitted
            return riders_beside_prompts(min(tokens, budget), budget, candidates, slowdown)
        return self.decode_cost.riders(leader.decoding, candidates, slowdown)

    def decide(self, view: EngineView) -> Plan:
        """Ask the policy, and check its answer.

        Raises:
            CapacityError: an answer that cannot be carried out, which would stop the engine.
        """
        try:
            return checked(self.policy.plan(view), view, self.config.policy)
        except PlanError as error:
            raise CapacityError(f"capacity: {error}") from error

    # -- composing a step ----------------------------------------------------------------------

    def compose(self, plan: Run) -> Batch:
        """The step that ``plan`` asks for; empty when its class can be given nothing."""
        level, slots = plan.level, self.server.slots
        decodes, self.decoding[level] = self.decoding[level], []
        prefills, self.prefilling[level] = self.prefilling[level], []
        queue = self.queues[level]
        eligible = self.admitted() + len(decodes) + len(prefills) + self.waiting()
        riders = self._riders(plan, decodes, prefills) if plan.riders else []
        for rider in riders:
            self.decoding[rider.level].remove(rider)
        if len(decodes) + len(prefills) > slots:
            running = sorted(decodes + prefills, key=lambda r: r.admitted)
            self.put_back(running[slots:])
            first = set(running[:slots])
            decodes = [r for r in decodes if r in first]
            prefills = [r for r in prefills if r in first]
        # Held-back requests of the leading class keep their slots, less urgent ones do not.
        held = len(self.decoding[level]) + len(self.prefilling[level])
        room = slots - len(decodes) - len(prefills) - len(riders) - held
        batch = self.fill(decodes, prefills, riders, queue, room, eligible)
        levels = [r.level for r, _ in batch.prefills] + [r.level for r in batch.decodes]
        batch.level = min(levels, default=level)
        batch.suspendable = self.suspendable and plan.suspendable and batch.level > 0
        batch.budget = plan.budget if batch.suspendable else None
        batch.protected = plan.protected
        return batch

    def _riders(self, plan: Run, decodes: list[Request], prefills: list[Request]) -> list[Request]:
        """Less urgent decodes that leave the leading class its slots, tokens and blocks."""
        candidates = [r for rows in self.decoding[plan.level + 1 :] for r in rows]
        if not candidates:
            return []
        candidates.sort(key=lambda r: (r.level, -r.emitted, r.arrived))
        leading = decodes + prefills
        slots = self.server.slots - len(leading)
        queued = self.queues[plan.level].first(slots)
        room = min(plan.riders, slots - len(queued), self._tokens_beside((*leading, *queued)))
        if room <= 0 or not (leading or queued):
            return []
        free = self.blocks.free - sum(map(self._growth, (*leading, *queued)))
        blocks = free - self._reserved
        if (blocks if plan.level else free) < 0:
            return []
        fitting: list[Request] = []
        for request in candidates:
            if len(fitting) == room:
                break
            growth = self._growth(request)
            if growth <= max(blocks, 0):
                blocks -= growth
                fitting.append(request)
        return fitting

    def _tokens_beside(self, leading: Sequence[Request]) -> int:
        """Tokens of a step that all of ``leading`` leave."""
        return self.server.token_budget - sum(r.missing for r in leading)

    def _growth(self, request: Request) -> int:
        """Blocks that the request has yet to get for its tokens."""
        return self.blocks.needed(request, request.prompt + request.emitted)

    # -- KV blocks -----------------------------------------------------------------------------

    def _reserve(self, rows: Sequence[Request]) -> int:
        return self._reserved if rows and rows[0].level else 0

    def _grow(self, request: Request, tokens: int) -> bool:
        blocks = self.blocks
        if blocks.take(request, tokens, self._left_by(request)):
            return True
        victims = self._victims(request.level)
        gain = sum(v.blocks for v in victims)
        if blocks.needed(request, tokens) > blocks.free + gain - self._left_by(request, gain):
            return False
        for victim in victims:
            self.decoding[victim.level][:] = [
                r for r in self.decoding[victim.level] if r is not victim
            ]
            self.prefilling[victim.level][:] = [
                r for r in self.prefilling[victim.level] if r is not victim
            ]
            self.preempt(victim)
            if blocks.take(request, tokens, self._left_by(request)):
                return True
        return False

    def _left_by(self, request: Request, gain: int = 0) -> int:
        """Blocks that the request has to leave free, once others have given ``gain`` back."""
        others = self.blocks.total - self.blocks.free - gain > request.blocks
        if not request.level or not others:
            return 0
        # What is owed to its class and fits in no other way cannot wait to be the only one.
        fits = not self.service.owed(request.level) or self._could_fit_beside_reserve(request)
        return self._reserved if fits else 0

    def _could_fit_beside_reserve(self, request: Request) -> bool:
        """Whether ``request`` finds room if all that are no more urgent give up theirs."""
        lists = (self.decoding, self.prefilling)
        more_urgent = sum(r.blocks for rows in lists for rs in rows[: request.level] for r in rs)
        left = self.blocks.total - request.blocks - more_urgent
        return self._growth(request) + self._reserved <= left

    def _victims(self, level: int) -> list[Request]:
        """Held-back requests whose blocks class ``level`` may take, first to go first."""
        config = self.config
        victims = [
            r
            for lists in (self.decoding, self.prefilling)
            for rows in lists[level + 1 :]
            for r in rows
            if r.preemptions < config.max_preemptions
        ]
        cap = config.progress_cap
        return sorted(
            victims,
            key=lambda r: victim_order(r.level, r.emitted, cap * r.output, 0.0, r.arrived),
        )
