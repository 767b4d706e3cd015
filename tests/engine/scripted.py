# SPDX-License-Identifier: Apache-2.0
"""A real engine in this process whose suspensions and arrivals follow a script."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from vllm import SamplingParams, envs
from vllm.engine.arg_utils import EngineArgs
from vllm.lora.request import LoRARequest
from vllm.plugins import load_general_plugins
from vllm.v1.engine import EngineCoreRequest
from vllm.v1.engine.core import EngineCore
from vllm.v1.executor import Executor

from vllm_qllm.engine.attach import attach
from vllm_qllm.engine.calls import Need
from vllm_qllm.policy import EngineView, Plan, Resume, Run, StrictPolicy

LS, BE = 0, 1


class StopEverywhere(StrictPolicy):
    """Strict, but every suspendable step stops at every yield point.

    ``ride`` makes urgent decodes take others along without asking what that costs.
    """

    ride = 0

    def plan(self, view: EngineView) -> Plan:
        plan = super().plan(view)
        if isinstance(plan, Resume):
            return Resume(0.0)
        riders = (
            self.ride
            if not (view.classes[plan.level].waiting or view.classes[plan.level].prefilling)
            else 0
        )
        return Run(plan.level, riders, plan.suspendable, 0.0)


def stop_everywhere(yield_points: str = "layer") -> dict[str, Any]:
    """A priority configuration whose steps stop at each of these yield points."""
    return {"policy": "tests.engine.scripted:StopEverywhere", "yield_points": yield_points}


@dataclass
class Result:
    """What one request got: its tokens, the log-probability of each, and why it ended.

    ``top_logprobs`` are all that it got, of one token after the other; ``prompt_logprobs`` are
    those of the prompt's tokens, if they were asked for; ``stop_reason`` says more of the end.
    """

    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: str | None = None
    top_logprobs: list[float] = field(default_factory=list)
    prompt_logprobs: list[float] = field(default_factory=list)
    stop_reason: int | str | None = None


class ScriptedEngine:
    """Runs requests to completion; ``on_suspended`` is called at every suspension.

    Args:
        model: directory of the model.
        threads: of torch in this process. More than one makes steps this small slower, not faster.
        engine_args: of vLLM, beside those below.

    Attributes:
        core: the vLLM EngineCore.
        results: by request id.
        on_suspended: called at each yield point at which a step is suspended.
        need: what a call of an operator's waits for then, which is carried out after :meth:`step`.
    """

    def __init__(self, model: Path, threads: int = 1, **engine_args: Any) -> None:
        load_general_plugins()
        args: dict[str, Any] = dict(  # noqa: C408
            model=str(model),
            dtype="float32",
            enforce_eager=True,
            max_model_len=1024,
            max_num_batched_tokens=256,
            max_num_seqs=4,
            block_size=32,
            num_gpu_blocks_override=128,
            kv_cache_memory_bytes=2**28,
            seed=0,
            priority_config=stop_everywhere(),
        )
        config = EngineArgs(**(args | engine_args)).create_engine_config()
        self._threads, set_num_threads = torch.get_num_threads(), torch.set_num_threads
        torch.set_num_threads(threads)
        try:
            self.core = EngineCore(config, Executor.get_class(config), log_stats=True)
            attach(self.core)
        finally:
            # vLLM does this for a process of its own; here other tests come after.
            torch.set_num_threads = set_num_threads
            envs.disable_envs_cache()
        self.results: dict[str, Result] = {}
        self.on_suspended: Callable[[], None] = lambda: None
        self.need = Need.NOTHING
        self.suspensions = 0
        self.broken = False
        self._ids = itertools.count()
        controller = getattr(self.core, "priority_controller", None)
        if controller is not None:
            controller._take_input = self._suspended

    def _suspended(self) -> Need:
        self.suspensions += 1
        self.on_suspended()
        return self.need

    def add(
        self,
        prompt: list[int],
        max_tokens: int,
        priority: int,
        lora: LoRARequest | None = None,
        **sampling: Any,
    ) -> str:
        """Add a request now; returns its id."""
        request_id = f"r{next(self._ids)}"
        greedy = {"temperature": 0.0, "ignore_eos": True, "logprobs": 1}
        params = SamplingParams(max_tokens=max_tokens, **(greedy | sampling))
        request = EngineCoreRequest(
            request_id=request_id,
            prompt_token_ids=list(prompt),
            mm_features=None,
            sampling_params=params,
            pooling_params=None,
            arrival_time=float(request_id[1:]),
            lora_request=lora,
            cache_salt=None,
            data_parallel_rank=None,
            priority=priority,
        )
        return self.admit(request)

    def admit(self, request: EngineCoreRequest) -> str:
        """Hand a request that is ready for the engine to it; returns its id."""
        self.results[request.request_id] = Result()
        self.core.add_request(*self.core.preprocess_add_request(request))
        return request.request_id

    def abort(self, *request_ids: str) -> None:
        """Abort requests, as a client that goes away does."""
        self.core.abort_requests(list(request_ids))

    def step(self) -> None:
        """Run one outer step with all that nests in it."""
        outputs, executed = self.core.step_fn()
        self.core.post_step(executed)
        for engine_outputs in outputs.values():
            for output in engine_outputs.outputs:
                result = self.results[output.request_id]
                result.tokens += output.new_token_ids
                if output.new_logprobs is not None:
                    rows = output.new_logprobs.logprobs
                    result.logprobs += [float(row[0]) for row in rows]
                    result.top_logprobs += [float(value) for row in rows for value in row]
                if (of_prompt := output.new_prompt_logprobs_tensors) is not None:
                    result.prompt_logprobs += of_prompt.logprobs[:, 0].tolist()
                if output.finish_reason is not None:
                    result.finish_reason = str(output.finish_reason)
                    result.stop_reason = output.stop_reason

    def run(self, steps: int = 10_000) -> None:
        """Step until nothing is left."""
        for _ in range(steps):
            if not self.core.scheduler.has_requests():
                return
            self.step()
        raise AssertionError("requests are left over")

    def run_arrivals(
        self,
        specs: list[tuple[list[int], int, int]],
        due: list[int],
        on_tick: Callable[[int, list[str]], None] = lambda tick, ids: None,
    ) -> list[str]:
        """Run requests that arrive one after another, also while steps are suspended.

        Args:
            specs: prompt, output tokens and priority of each.
            due: after how many steps and suspensions each arrives.
            on_tick: called at each of these with its number, and the ids of those that arrived.

        Returns:
            Their ids, in the order of ``specs``.
        """
        left = sorted(range(len(specs)), key=lambda i: due[i])
        ids = [""] * len(specs)
        ticks = itertools.count()

        def arrive() -> None:
            now = next(ticks)
            while left and due[left[0]] <= now:
                first = left.pop(0)
                ids[first] = self.add(*specs[first])
            on_tick(now, ids)

        self.on_suspended = arrive
        while left or self.core.scheduler.has_requests():
            arrive()
            self.step()
        return ids

    def reset(self) -> None:
        """Forget results and cached prefixes; every block must be free."""
        assert self.core.scheduler.reset_prefix_cache()
        self.results.clear()
        self.need = Need.NOTHING
        self.on_suspended = lambda: None

    def alone(self, prompt: list[int], max_tokens: int, **sampling: Any) -> Result:
        """The same request on an idle engine, never suspended, nothing cached."""
        self.reset()
        request_id = self.add(prompt, max_tokens, LS, **sampling)
        self.run()
        result = self.results[request_id]
        self.reset()
        return result

    @property
    def free_blocks(self) -> int:
        """KV blocks that nobody holds."""
        return int(self.core.scheduler.kv_cache_manager.block_pool.get_num_free_blocks())

    def discard(self) -> None:
        """Give up an engine that failed; the next test gets a new one."""
        self.broken = True

    def close(self) -> None:
        """Shut the engine down."""
        self.core.shutdown()
        torch.set_num_threads(self._threads)


EngineFor = Callable[..., ScriptedEngine]
