# SPDX-License-Identifier: Apache-2.0
"""Calls of operators while steps are in flight: they do not wait long, and change no token."""

from __future__ import annotations

import ast
import queue
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import vllm.v1.engine.core_client
from vllm.lora.request import LoRARequest
from vllm.v1.engine import EngineCoreRequestType
from vllm.v1.engine.core import EngineCoreProc, EngineShutdownState
from vllm.v1.fault_tolerance.engine_core_sentinel import FT_UTILITY_METHOD

import vllm_qllm.engine.controller
from benchmarks.models.adapters import make_adapter
from benchmarks.models.model import make as make_model
from tests.engine.bare_scheduler import BE, LS, BareScheduler, Clock, Make
from tests.engine.scripted import EngineFor
from tests.engine.test_token_equality import assert_same, prompt
from vllm_qllm.engine.calls import AT_ONCE, BETWEEN_STEPS, Need, need_of
from vllm_qllm.engine.controller import Controller
from vllm_qllm.execution.protocol import GIVE_UP, Place, Suspended
from vllm_qllm.policy import Run

# Arguments as clients send them, with what each call then needs; all that is listed must be here.
PLAIN: dict[str, tuple[Any, ...]] = dict.fromkeys((*AT_ONCE, *BETWEEN_STEPS), ()) | {
    "add_lora": (LoRARequest("a", 1, "/nowhere"),),
    "remove_lora": (1,),
    "pin_lora": (1,),
    "collective_rpc": ("check_health", None, (), None),
    "save_sharded_state": ("/nowhere", None, None),
    "set_weight_version": ("v2",),
    "wake_up": (None,),
    "profile": (True, None),
    "reinitialize_distributed": (None,),
}
BY_ARGUMENTS = [
    ("pause_scheduler", ("abort", True), Need.NO_REQUEST),
    ("pause_scheduler", (), Need.NO_REQUEST),
    ("pause_scheduler", ("keep", False), Need.NO_STEP),
    ("pause_scheduler", ("wait", True), Need.NOTHING),
    ("sleep", (1, "abort"), Need.NO_REQUEST),
    ("sleep", (1,), Need.NO_REQUEST),
    ("sleep", (2, "keep"), Need.NO_STEP),
    ("sleep", (0, "wait"), Need.NOTHING),
    ("reset_prefix_cache", (), Need.NOTHING),
    ("reset_prefix_cache", (False, False), Need.NOTHING),
    ("reset_prefix_cache", (True, False), Need.NO_STEP),
    ("reset_prefix_cache", (False, True), Need.NO_STEP),
    # What vLLM refuses, it refuses at once; what nobody has looked at is as in vLLM.
    ("reset_prefix_cache", (1, 2, 3), Need.NOTHING),
    ("of_a_later_version", (), Need.NO_STEP),
]


def call(method: str, *args: Any) -> tuple[EngineCoreRequestType, Any]:
    """An item of the engine's input queue."""
    return EngineCoreRequestType.UTILITY, (0, 17, method, args)


# -- which calls there are -------------------------------------------------------------------------


def called_by_clients() -> set[str]:
    """Every method that a client of vLLM's calls on the engine."""
    tree = ast.parse(Path(vllm.v1.engine.core_client.__file__).read_text())
    found = set()
    for node in ast.walk(tree):
        name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        if "call_utility" in name and isinstance(node, ast.Call):
            method = node.args[0]
            if isinstance(method, ast.Constant):
                found.add(method.value)
            else:  # handed on, or taken by the IO thread alone
                assert ast.unparse(method) in ("method", "FT_UTILITY_METHOD"), ast.unparse(node)
    return found - {FT_UTILITY_METHOD}


def test_every_call_of_vllm_is_known_and_no_other() -> None:
    assert not AT_ONCE.keys() & BETWEEN_STEPS.keys()
    assert called_by_clients() == AT_ONCE.keys() | BETWEEN_STEPS.keys()


@pytest.mark.parametrize(("method", "args", "need"), BY_ARGUMENTS)
def test_what_a_call_needs_depends_on_its_arguments(
    method: str, args: tuple[Any, ...], need: Need
) -> None:
    assert need_of(call(method, *args)) is need


# -- what the controller makes of them -------------------------------------------------------------


class Engine(EngineCoreProc):
    """vLLM's engine with the real scheduler and controller; a step takes no time."""

    def __init__(self, bare: BareScheduler) -> None:
        self.bare = bare
        self.scheduler = bare.scheduler
        self.input_queue: Any = queue.Queue()
        self.output_queue: Any = queue.Queue()
        self.shutdown_state = EngineShutdownState.RUNNING
        self.vllm_config: Any = SimpleNamespace(shutdown_timeout=0)
        self.model_executor: Any = SimpleNamespace(priority_attach=lambda *arguments: 0)
        self.invoked: list[str] = []
        self.controller = Controller(self)

    def _invoke_utility_method(self, name: str, *rest: Any) -> None:  # type: ignore[override]
        self.invoked.append(name)

    def _process_engine_step(self) -> bool:
        self.bare.begin()
        self.bare.end()
        return True

    def start(self, plan: Run) -> None:
        """A step starts."""
        self.bare.scheduler.use_plan(plan)
        self.bare.begin()
        self.controller.next_command()

    def suspend(self) -> float | None:
        """The running step stops; returns for how long it may then run on, or GIVE_UP."""
        self.bare.clock.now += 0.05
        step = self.bare.step_in_flight
        return self.controller.on_suspended(Suspended(step.number, 1, Place(0, "before attention")))

    def send(self, *items: tuple[EngineCoreRequestType, Any]) -> None:
        """The IO thread puts these into the input queue."""
        for item in items:
            self.input_queue.put_nowait(item)

    @property
    def stops(self) -> bool:
        """Whether the running step stops at its next yield point."""
        return self.controller._flag.names(self.bare.step_in_flight.number)

    @property
    def left(self) -> list[str]:
        """Names of the calls that have been taken by nobody."""
        return [payload[2] for _, payload in self.input_queue.queue]


@pytest.fixture
def engine(make: Make, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setattr(vllm_qllm.engine.controller, "time", clock)
    monkeypatch.setattr(vllm_qllm.engine.controller, "deadline", lambda budget: budget)
    made = Engine(make())
    made.bare.add("b1", BE, 64)
    yield made
    made.controller.close()


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("method", [*AT_ONCE, *BETWEEN_STEPS])
def test_a_call_stops_the_running_step_and_is_answered_or_ends_it(
    engine: Engine, method: str, early: bool
) -> None:
    made = call(method, *PLAIN[method])
    if early:  # just before the step starts
        engine.send(made)
    engine.start(Run(1))
    if not early:
        engine.send(made)
    assert engine.stops
    how = engine.suspend()
    if need_of(made) is Need.NOTHING:
        assert (how, engine.invoked, engine.left) == (None, [method], [])
        assert not engine.stops, "it is answered, and the step goes on"
    else:
        assert (how, engine.invoked, engine.left) == (GIVE_UP, [], [method])


def test_calls_keep_their_order(engine: Engine) -> None:
    engine.start(Run(1))
    first, second, third = call("is_sleeping"), call("set_weight_version", "v"), call("list_loras")
    engine.send(first, second, third)
    assert engine.suspend() == GIVE_UP
    assert engine.invoked == ["is_sleeping"]
    assert engine.left == ["set_weight_version", "list_loras"]


def test_a_step_is_given_up_though_urgent_work_waits(engine: Engine) -> None:
    engine.start(Run(1))
    engine.bare.add("l1", LS, 16, out=9)
    engine.send(call("pause_scheduler", "abort"))
    assert engine.suspend() == GIVE_UP
    assert engine.bare.requests["l1"].num_output_tokens == 0, "nothing ran on top of it"


def test_a_call_that_comes_during_a_nested_step_ends_those_below(engine: Engine) -> None:
    engine.start(Run(1))
    engine.bare.add("l1", LS, 16, out=9)
    nested = engine._process_engine_step

    def step() -> bool:
        engine.send(call("collective_rpc", "check_health"))
        return nested()

    engine._process_engine_step = step  # type: ignore[method-assign]
    assert engine.suspend() == GIVE_UP
    assert engine.bare.requests["l1"].num_output_tokens == 1


def test_only_what_ends_a_step_cuts_its_slice_short(engine: Engine) -> None:
    engine.start(Run(1, budget=0.05, protected=True))
    engine.send(call("is_sleeping"))
    assert not engine.stops
    engine.send(call("reset_prefix_cache", True))
    assert engine.stops


def test_calls_that_come_often_do_not_starve_requests(engine: Engine) -> None:
    bare, most = engine.bare, engine.bare.scheduler.priority_config.max_preemptions
    for _ in range(most):
        engine.start(Run(1))
        engine.send(call("set_weight_version", "v"))
        assert engine.suspend() == GIVE_UP
        bare.end()
        engine.input_queue.get_nowait()
    engine.start(Run(1))
    engine.send(call("set_weight_version", "v"))
    bare.add("l1", LS, 16, out=9)
    assert engine.suspend() is None, "it has the time that it needs, and nothing runs on top of it"
    engine.send((EngineCoreRequestType.ADD, (SimpleNamespace(priority=LS), 0)))
    assert not engine.stops
    # What ends all requests has nothing to spare them for.
    engine.input_queue.queue.clear()
    engine.send(call("pause_scheduler", "abort"))
    assert engine.stops and engine.suspend() == GIVE_UP


def test_a_step_that_restores_ends_in_its_own_time(engine: Engine) -> None:
    engine.start(Run(1))
    engine.bare.step_in_flight.restoring = {"b1": [1]}
    engine.send(call("pause_scheduler", "abort"))
    assert engine.suspend() is None
    assert engine.bare.step_in_flight.protected and not engine.stops


@pytest.mark.parametrize("drains", [False, True])
def test_a_server_that_is_to_end_at_once_gives_its_step_up(engine: Engine, drains: bool) -> None:
    engine.vllm_config.shutdown_timeout = 60 if drains else 0
    engine.start(Run(1))
    engine.shutdown_state = EngineShutdownState.REQUESTED
    engine.send((EngineCoreRequestType.WAKEUP, None))
    assert engine.stops
    assert engine.suspend() == (None if drains else GIVE_UP)


def test_a_step_that_nobody_wants_is_given_up(engine: Engine) -> None:
    engine.bare.add("b2", BE, 16)
    engine.start(Run(1))
    abort = EngineCoreRequestType.ABORT
    engine.bare.step_in_flight.request_ids["b2"] = 16
    engine.send((abort, ["b1"]))
    assert not engine.stops, "somebody wants it"
    assert engine.suspend() is None
    engine.send((abort, ["b2", "b1"]))
    assert engine.stops
    assert engine.suspend() == GIVE_UP


# -- tokens ----------------------------------------------------------------------------------------

# What an engine of one process on a CPU cannot be asked for.
ELSEWHERE = {"reinitialize_distributed", "commit_prepared_elastic_ep"}
KEEP = ("keep", False)


def test_all_calls_are_tried_or_say_why_not() -> None:
    assert BETWEEN_STEPS.keys() > ELSEWHERE


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[LoRARequest]]:
    """A model, and two adapters for it."""
    folder = tmp_path_factory.mktemp("lora")
    model = make_model("tiny-llama", folder / "base")
    made = [
        LoRARequest(f"adapter-{n}", n, str(make_adapter("tiny-llama", n, folder / f"{n}")))
        for n in (1, 2)
    ]
    return str(model), made


@pytest.mark.parametrize("method", sorted((AT_ONCE.keys() | BETWEEN_STEPS.keys()) - ELSEWHERE))
def test_no_call_changes_a_token(
    engine_for: EngineFor,
    adapters: tuple[str, list[LoRARequest]],
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
    method: str,
) -> None:
    model, lora = adapters
    traces = tmp_path_factory.getbasetemp() / "traces"
    engine = engine_for(
        model=model,
        enable_lora=True,
        max_loras=1,
        max_lora_rank=8,
        profiler_config={"profiler": "torch", "torch_profiler_dir": str(traces)},
    )
    core = engine.core
    args: list[tuple[Any, ...]] = [PLAIN[method]]
    if method in ("sleep", "pause_scheduler"):
        args = [(1, *KEEP[:1])] if method == "sleep" else [KEEP]
    elif method == "reset_prefix_cache":
        args = [(False,), (True,)]
    elif method == "add_lora":
        args = [(lora[1],)]  # there is one slot, which is in use
    elif method == "save_sharded_state":
        args = [(str(tmp_path), None, None)]
    elif method == "profile":
        args = [(True,), (False,)]
    expected = engine.alone(prompt(1, 400), 6, lora=lora[0])
    urgent = engine.alone(prompt(2, 90), 4, lora=lora[1])
    core.add_lora(lora[0])
    given = iter(args)
    waits: list[tuple[Any, ...]] = []
    ids = [engine.add(prompt(1, 400), 6, BE, lora=lora[0])]

    def suspended() -> None:
        if engine.suspensions - before == 2:
            ids.append(engine.add(prompt(2, 90), 4, LS, lora=lora[1]))
        elif engine.suspensions - before > 3 and (made := next(given, None)) is not None:
            if need_of(call(method, *made)) is Need.NOTHING:
                answer(made)
            else:
                engine.need = need_of(call(method, *made))
                waits.append(made)

    def answer(made: tuple[Any, ...]) -> None:
        if method == "release_kv_cache_memory":
            with pytest.raises(RuntimeError, match="requires a completed pause"):
                core.release_kv_cache_memory()
            return
        getattr(core, method)(*made)
        if method == "pin_lora":
            core.remove_lora(*made)  # or there is no slot left for another one, as in vLLM itself

    before = engine.suspensions
    engine.on_suspended = suspended
    while core.scheduler.has_requests() or waits:
        engine.step()
        engine.need = Need.NOTHING
        while waits:
            assert not core.scheduler.flight
            answer(waits.pop())
            core.resume_scheduler()
    assert next(given, None) is None, "it was called"
    assert_same(engine.results[ids[0]], expected, method)
    assert_same(engine.results[ids[1]], urgent, method)
    engine.reset()
