# SPDX-License-Identifier: Apache-2.0
"""The real ``PriorityScheduler`` with no model below it: outputs are made up, time is virtual.

A scenario is a list of events. ``step(a=16, b=1)`` reads "one whole step, in which exactly these
requests got exactly these tokens"; ``begin`` and ``end`` are its two halves, between which a step
can be suspended, and ``nested`` is a step on top of a suspended one, decided by the policy as the
controller would.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from vllm import SamplingParams
from vllm.lora.request import LoRARequest
from vllm.multimodal.inputs import MultiModalFeatureSpec, PlaceholderRange
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import DraftTokenIds, ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus
from vllm.v1.structured_output import StructuredOutputManager

from vllm_qllm.engine.scheduler import PriorityScheduler
from vllm_qllm.engine.step import Step
from vllm_qllm.execution.protocol import BEFORE_ATTENTION, Place
from vllm_qllm.policy import Resume, Run

LS, BE = 0, 1
BLOCK = 16
THREE_CLASSES: list[dict[str, Any]] = [
    {"name": "chat", "max_priority": 0},
    {"name": "agent", "max_priority": 10},
    {"name": "batch"},
]
AGENT, BATCH = 5, 11


class Clock:
    """Stands in for the ``time`` module of the engine's files."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


class BareScheduler:
    """One scheduler, the steps in flight, and what came out.

    Args:
        base: an engine configuration with a priority policy; it is copied.
        clock: virtual time.
        blocks: usable KV blocks (vLLM sets one more aside).
        seqs: ``max_num_seqs``.
        tokens: ``max_num_batched_tokens``.
        size: tokens that a block holds.
        configure: changes the engine's configuration further.
        priority: fields of the priority configuration.
    """

    def __init__(
        self,
        base: Any,
        clock: Clock,
        blocks: int = 64,
        seqs: int = 4,
        tokens: int = 64,
        size: int = BLOCK,
        configure: Callable[[Any], None] = lambda config: None,
        **priority: Any,
    ) -> None:
        config = copy.deepcopy(base)
        config.scheduler_config.max_num_seqs = seqs
        config.scheduler_config.max_num_batched_tokens = tokens
        config.scheduler_config.max_num_scheduled_tokens = None
        config.cache_config.num_gpu_blocks = blocks + 1
        config.cache_config.block_size = size
        given = {"policy": "strict", "reserved_kv": 0.0} | priority
        config.additional_config = {"priority": given}
        configure(config)
        spec = FullAttentionSpec(block_size=size, num_kv_heads=1, head_size=1, dtype=torch.float32)
        kv = KVCacheConfig(
            num_blocks=blocks + 1,
            kv_cache_tensors=[],
            kv_cache_groups=[KVCacheGroupSpec(["layer"], spec)],
        )
        self.scheduler = PriorityScheduler(
            vllm_config=config,
            kv_cache_config=kv,
            structured_output_manager=StructuredOutputManager(config),
            block_size=size,
            log_stats=True,
        )
        init_none_hash(sha256)
        self._hasher = get_request_block_hasher(size, sha256)
        self.clock = clock
        self.blocks, self.size = blocks, size
        self.requests: dict[str, Request] = {}
        self.finished: dict[str, str] = {}
        self.outputs: list[SchedulerOutput] = []
        self.gone: set[str] = set()
        # Tokens whose KV each block holds; and, by step, what will be written where.
        self.content: dict[int, list[int]] = {}
        self.writing: dict[int, dict[int, tuple[int, list[int]]]] = {}

    # -- what happens ----------------------------------------------------------------------------

    def add(
        self,
        name: str,
        priority: int,
        prompt: int | list[int],
        out: int = 4,
        arrival: float | None = None,
        program: str | None = None,
        adapter: int | None = None,
        images: list[tuple[int, int]] | None = None,
        resumable: bool = False,
    ) -> Request:
        """A request arrives; prompts given as a length have tokens of their own.

        Args:
            adapter: number of a LoRA adapter.
            images: (first token, number of tokens) of each.
            resumable: whether its client may send more.
        """
        number = len(self.requests)
        if isinstance(prompt, int):
            tokens = [10_000 * (number + 1) + i for i in range(prompt)]
        else:
            tokens = prompt
        request = Request(
            request_id=name,
            prompt_token_ids=tokens,
            sampling_params=SamplingParams(
                max_tokens=out,
                ignore_eos=True,
                extra_args={"program_id": program} if program else None,
            ),
            pooling_params=None,
            arrival_time=float(number) if arrival is None else arrival,
            priority=priority,
            block_hasher=self._hasher,
            lora_request=LoRARequest(f"adapter-{adapter}", adapter, "none") if adapter else None,
            mm_features=[
                MultiModalFeatureSpec(
                    None, "image", f"{name}-{i}", PlaceholderRange(offset=first, length=length)
                )
                for i, (first, length) in enumerate(images or [])
            ],
            resumable=resumable,
        )
        self.requests[name] = request
        self.scheduler.add_request(request)
        return request

    def abort(self, *names: str) -> None:
        """Clients go away."""
        self.scheduler.finish_requests(list(names), RequestStatus.FINISHED_ABORTED)

    def begin(self) -> dict[str, int]:
        """Schedule a step; it is then in flight."""
        output = self.scheduler.schedule()
        self.outputs.append(output)
        self.step_in_flight.resumed_at = self.clock.now
        self.write(output)
        self.check()
        return dict(output.num_scheduled_tokens)

    def suspend(self, ran: float = 0.05) -> None:
        """The step in flight stops at a yield point."""
        step = self.step_in_flight
        assert step.suspendable, f"{step} cannot be suspended"
        self.clock.now += ran
        self.scheduler.suspend(Place(0, BEFORE_ATTENTION), yield_point=1, by=None)

    def resume(self) -> None:
        """The innermost suspended step runs again."""
        self.scheduler.resume(Resume(budget=1.0, protected=self.step_in_flight.protected))

    def give_up(self) -> None:
        """The innermost suspended step ends where it stands."""
        self.scheduler.resume(None)

    def write(self, output: SchedulerOutput) -> None:
        """Note what a step writes, and check that it reads what was computed of its requests.

        A block may be read in the step that writes it, but not while that step is suspended.
        """
        writing = self.writing[self.step_in_flight.number] = {}
        reads = []
        for name, count in output.num_scheduled_tokens.items():
            request = self.scheduler.requests[name]
            tokens, end = list(request.all_token_ids), request.num_computed_tokens
            start = end - count
            for i, block in enumerate(self.blocks_of(name)):
                first = i * self.size
                if first < start:
                    reads.append((name, block, tokens[first : min(first + self.size, start)]))
                if start < first + self.size and first < end:
                    kept = max(0, start - first)
                    writing[block] = kept, tokens[first + kept : min(first + self.size, end)]
        for name, block, expected in reads:
            kept, new = writing.get(block, (self.size, []))
            found = [*self.content.get(block, [])[:kept], *new]
            assert found[: len(expected)] == expected, f"{name} reads what is not its own"

    def written(self) -> None:
        """The innermost step ends: its blocks hold what it wrote, or what nobody knows."""
        for block, (kept, new) in self.writing.pop(self.step_in_flight.number).items():
            before = self.content.get(block, [])[:kept]
            self.content[block] = before if self.abandoned else before + new

    def decide(self) -> Run | Resume:
        """What the policy wants now."""
        return self.scheduler.decide()

    def nest(self) -> dict[str, int] | None:
        """Schedule what the policy wants on top of the suspended step; None: it wants to resume."""
        plan = self.decide()
        if isinstance(plan, Resume):
            return None
        self.scheduler.use_plan(plan)
        return self.begin()

    def end(self, took: float = 0.0) -> None:
        """The step in flight completes: every request whose known tokens are computed gets one."""
        self.clock.now += took
        output = self.outputs.pop()
        names = list(output.num_scheduled_tokens)
        known = self.scheduler.requests
        sampled = [
            [7] if name in known and not known[name].is_prefill_chunk else [] for name in names
        ]
        if self.abandoned:
            sampled = []
        result = ModelRunnerOutput(
            req_ids=names,
            req_id_to_index={name: i for i, name in enumerate(names)},
            sampled_token_ids=sampled,
        )
        self.written()
        self.gone |= output.finished_req_ids
        for outputs in self.scheduler.update_from_output(output, result).values():
            for one in outputs.outputs:
                if one.finish_reason is not None:
                    self.finished[one.request_id] = str(one.finish_reason)
        if drafts := self.scheduler.num_spec_tokens:
            self.scheduler.update_draft_token_ids(
                DraftTokenIds(names, [[8] * drafts for _ in names])
            )
        self.check()

    # -- what is -----------------------------------------------------------------------------------

    @property
    def step_in_flight(self) -> Step:
        """The innermost step."""
        return self.scheduler.flight.last

    @property
    def abandoned(self) -> bool:
        """Whether the innermost step is given up."""
        return self.step_in_flight.abandoned

    @property
    def free(self) -> int:
        """KV blocks that nobody holds."""
        return int(self.scheduler.kv_cache_manager.block_pool.get_num_free_blocks())

    def blocks_of(self, name: str) -> list[int]:
        """Ids of the KV blocks of a request."""
        return list(self.scheduler.kv_cache_manager.get_block_ids(name)[0])

    def running(self) -> set[str]:
        """Names of the admitted requests."""
        return {r.request_id for r in self.scheduler.running}

    def preemptions(self) -> dict[str, int]:
        """How often each request lost its blocks, those that did."""
        counts = {name: r.num_preemptions for name, r in self.requests.items()}
        return {name: n for name, n in counts.items() if n}

    def check(self) -> None:
        """What must hold at any time, whatever happened."""
        scheduler = self.scheduler
        *outer, inner = scheduler.flight or [None]
        # A request is in one place.
        places = Counter(
            r.request_id
            for r in (*scheduler.running, *scheduler.waiting, *scheduler.kv_holding_waiting)
        )
        assert places == Counter(scheduler.requests.keys())
        in_steps = Counter(name for step in scheduler.flight for name in step.request_ids)
        assert all(n == 1 for n in in_steps.values()), in_steps
        # Nobody else writes into blocks of a suspended step, or reads what it has not written.
        if inner is not None:
            newly = {r for r in inner.request_ids if r in scheduler.requests}
            written = scheduler.blocks.written_by(
                [scheduler.requests[r] for r in newly], dict(inner.request_ids)
            )
            used = {b for name in newly for b in self.blocks_of(name)}
            for step in outer:
                members = [name for name in step.request_ids if name in scheduler.requests]
                held = {b for name in members for b in self.blocks_of(name)}
                assert members == list(step.request_ids), "a request left a suspended step"
                assert not written & held
                assert not used & step.unwritten_blocks
        # Blocks are held by requests, or for the next turn of a program, and by nobody else.
        held = {b for name in scheduler.requests for b in self.blocks_of(name)} - {0}
        held |= {b.block_id for kept in scheduler.programs._kept.values() for b in kept.blocks}
        assert self.free == self.blocks - len(held)
        slots = scheduler.scheduler_config.max_num_active_seqs or scheduler.max_num_running_reqs
        assert scheduler.max_num_active_reqs == slots
        assert len(scheduler.waiting) == sum(1 for _ in scheduler.waiting)

    def assert_idle(self) -> None:
        """Nothing is left of any request."""
        scheduler = self.scheduler
        assert not scheduler.requests and not scheduler.running and not scheduler.flight
        assert not scheduler.waiting and not scheduler.kv_holding_waiting
        assert not scheduler.deferred_waiting and not scheduler._inflight_prefills
        assert not scheduler.by_class.held
        assert not scheduler.progress._of
        assert not scheduler.victims._trimmed and not scheduler.victims._abandoned
        assert self.free == self.blocks
        assert not any(c.has_work for c in scheduler.view(self.clock.now).classes)


# -- events of a scenario --------------------------------------------------------------------------

Event = Callable[[BareScheduler], None]


def play(bare: BareScheduler, events: Iterable[Event]) -> None:
    """Play a scenario; a failure names the event by its number."""
    for number, event in enumerate(events, 1):
        try:
            event(bare)
        except AssertionError as error:
            error.add_note(f"in event {number}")
            raise


def add(name: str, priority: int, prompt: int | list[int], out: int = 4, **more: Any) -> Event:
    def event(bare: BareScheduler) -> None:
        bare.add(name, priority, prompt, out, **more)

    return event


def abort(*names: str) -> Event:
    return lambda bare: bare.abort(*names)


def begin(**tokens: int) -> Event:
    def event(bare: BareScheduler) -> None:
        assert bare.begin() == tokens

    return event


def end(took: float = 0.0) -> Event:
    return lambda bare: bare.end(took)


def step(**tokens: int) -> Event:
    def event(bare: BareScheduler) -> None:
        assert bare.begin() == tokens
        bare.end()

    return event


def steps(count: int, **tokens: int) -> Event:
    def event(bare: BareScheduler) -> None:
        for number in range(count):
            assert bare.begin() == tokens, f"step {number + 1} of {count}"
            bare.end()

    return event


def suspend(ran: float = 0.05) -> Event:
    return lambda bare: bare.suspend(ran)


def resume() -> Event:
    def event(bare: BareScheduler) -> None:
        assert isinstance(bare.decide(), Resume)
        bare.resume()

    return event


def resume_anyway() -> Event:
    """As the controller does when nothing could be scheduled on top."""
    return BareScheduler.resume


def give_up() -> Event:
    """As the controller does when that is wanted."""

    def event(bare: BareScheduler) -> None:
        assert bare.scheduler.abandonment.wanted
        bare.give_up()
        bare.end()

    return event


def plan(level: int, **more: Any) -> Event:
    """The next step follows this plan, whatever the policy would say."""
    return lambda bare: bare.scheduler.use_plan(Run(level, **more))


def any_step() -> Event:
    def event(bare: BareScheduler) -> None:
        bare.begin()
        bare.end()

    return event


def nested(**tokens: int) -> Event:
    def event(bare: BareScheduler) -> None:
        assert bare.nest() == tokens
        bare.end()

    return event


def nest(**tokens: int) -> Event:
    def event(bare: BareScheduler) -> None:
        assert bare.nest() == tokens

    return event


def wait(seconds: float) -> Event:
    def event(bare: BareScheduler) -> None:
        bare.decide()  # a view must have been taken for waiting to be noticed
        bare.clock.now += seconds

    return event


def expect(
    preemptions: Mapping[str, int] | None = None,
    running: set[str] | None = None,
    finished: set[str] | None = None,
    free: int | None = None,
    give_up: bool | None = None,
) -> Event:
    def event(bare: BareScheduler) -> None:
        if preemptions is not None:
            assert bare.preemptions() == preemptions
        if running is not None:
            assert bare.running() == running
        if finished is not None:
            assert set(bare.finished) == finished
        if free is not None:
            assert bare.free == free
        if give_up is not None:
            assert bare.scheduler.abandonment.wanted == give_up

    return event


def idle() -> Event:
    return BareScheduler.assert_idle


Make = Callable[..., BareScheduler]
Scenario = tuple[dict[str, Any], list[Event]]
