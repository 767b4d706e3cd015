# SPDX-License-Identifier: Apache-2.0
"""The attributes of vLLM that are wrapped, each in one place and for one reason.

The plugin replaces them at run time. A vLLM built with ``patches/`` wraps them where they are
defined, with the same functions, and leaves nothing to replace.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

# The attribute of a wrapped function that says where it was wrapped.
MARK = "__vllm_qllm__"
RUN_TIME, SOURCE = "at run time", "in vLLM's source"


@dataclass(frozen=True)
class Seam:
    """One attribute of vLLM that is wrapped.

    Attributes:
        module: where the owner lives.
        owner: class name, or "" for the module itself.
        name: the attribute.
        parameters: names of its parameters in the vLLM version that we know.
        why: what it is for, in words for the operator.
        wrap: makes the replacement from the original function.
    """

    module: str
    owner: str
    name: str
    parameters: tuple[str, ...]
    why: str
    wrap: Callable[[Callable[..., Any]], Callable[..., Any]]

    def __str__(self) -> str:
        return ".".join(part for part in (self.module, self.owner, self.name) if part)

    def holder(self) -> Any:
        """The class or module that holds the attribute; raises when it is not there."""
        module = import_module(self.module)
        return getattr(module, self.owner) if self.owner else module

    def place(self) -> str | None:
        """Where it is wrapped, RUN_TIME or SOURCE; None while it is not."""
        return getattr(getattr(self.holder(), self.name), MARK, None)

    def install(self) -> bool:
        """Replace the attribute at run time; False when it is wrapped already."""
        return self.install_in(self.holder(), RUN_TIME)

    def install_in(self, holder: Any, place: str) -> bool:
        """Replace the attribute of ``holder``; False when it is wrapped already."""
        raw = vars(holder)[self.name]
        kind = type(raw) if isinstance(raw, (staticmethod, classmethod)) else None
        original = raw.__func__ if kind else raw
        if hasattr(original, MARK):
            return False
        replacement = self.wrapped(original, place)
        setattr(holder, self.name, kind(replacement) if kind else replacement)
        return True

    def wrapped(self, original: Callable[..., Any], place: str) -> Callable[..., Any]:
        """What stands for ``original``, marked with its place."""
        replacement = functools.wraps(original)(self.wrap(original))
        setattr(replacement, MARK, place)
        return replacement


def _add_cli_args(original: Callable[..., Any]) -> Callable[..., Any]:
    def add_cli_args(parser: Any) -> Any:
        from vllm_qllm.cli import add_options

        return add_options(original(parser))

    return add_cli_args


def _init(original: Callable[..., Any]) -> Callable[..., Any]:
    def __init__(
        self: Any,
        *args: Any,
        priority_policy: Any = None,
        priority_config: Any = None,
        **kwargs: Any,
    ) -> None:
        original(self, *args, **kwargs)
        self.priority_policy, self.priority_config = priority_policy, priority_config

    return __init__


def _from_cli_args(original: Callable[..., Any]) -> Callable[..., Any]:
    def from_cli_args(cls: Any, args: Any) -> Any:
        from vllm_qllm.cli import OPTIONS
        from vllm_qllm.support import refuse_front_end

        engine_args = original(cls, args)
        given = {option: getattr(args, option, None) for option in OPTIONS}
        for option, value in given.items():
            setattr(engine_args, option, value)
        # Each of several API servers reads these arguments again, in a new process and before it
        # has loaded any plugin: what vLLM itself carries over must hold them too.
        if given := {option: value for option, value in given.items() if value is not None}:
            refuse_front_end(args)
            args.additional_config = {**(args.additional_config or {}), **given}
        return engine_args

    return from_cli_args


def _create_engine_config(original: Callable[..., Any]) -> Callable[..., Any]:
    def create_engine_config(self: Any, *args: Any, **kwargs: Any) -> Any:
        from vllm_qllm.cli import config_of

        config = config_of(self)
        if config is None:
            return original(self, *args, **kwargs)
        from vllm_qllm.apply import apply
        from vllm_qllm.contract import require

        require()
        if self.async_scheduling is None:
            self.async_scheduling = False  # a suspended step has no successor in flight
        vllm_config = original(self, *args, **kwargs)
        apply(vllm_config, config)
        return vllm_config

    return create_engine_config


def _run_busy_loop(original: Callable[..., Any]) -> Callable[..., Any]:
    def run_busy_loop(self: Any) -> None:
        from vllm_qllm.engine.attach import attach

        attach(self)
        original(self)

    return run_busy_loop


def _inproc_client_init(original: Callable[..., Any]) -> Callable[..., Any]:
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        from vllm_qllm.engine.attach import attach

        original(self, *args, **kwargs)
        attach(self.engine_core)

    return __init__


def _worker_busy_loop(original: Callable[..., Any]) -> Callable[..., Any]:
    def worker_busy_loop(self: Any) -> None:
        from vllm_qllm.execution.rpc_loop import busy_loop

        busy_loop(self, original)

    return worker_busy_loop


def _get_prometheus_registry(original: Callable[..., Any]) -> Callable[..., Any]:
    def get_prometheus_registry() -> Any:
        from vllm_qllm.metrics.registry import with_priority_metrics

        return with_priority_metrics(original())

    return get_prometheus_registry


def _multiprocess_collect(original: Callable[..., Any]) -> Callable[..., Any]:
    def collect(self: Any) -> Any:
        from vllm_qllm.metrics.registry import with_priority_families

        return with_priority_families(original(self))

    return collect


def _serving_init(original: Callable[..., Any]) -> Callable[..., Any]:
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        from vllm_qllm.api.serving import teach

        original(self, *args, **kwargs)
        teach(self)

    return __init__


def _sample_tokens(original: Callable[..., Any]) -> Callable[..., Any]:
    def sample_tokens(self: Any, grammar_output: Any) -> Any:
        from vllm_qllm.config import carried

        if carried(self.vllm_config) is None or self.device.type != "cpu":
            return original(self, grammar_output)
        from vllm_qllm.execution.seeds import unused_generators_set_aside

        with unused_generators_set_aside(self):
            return original(self, grammar_output)

    return sample_tokens


def _select_forward(original: Callable[..., Any]) -> Callable[..., Any]:
    def select_forward(self: Any) -> Any:
        import torch
        from vllm.config.vllm import get_current_vllm_config

        from vllm_qllm.config import carried

        data = carried(get_current_vllm_config())
        if data is None or data["checkpoints"] != "expert":
            return original(self)
        # On the CPU vLLM traces through the layer, where no Python is left to stop at.
        ops = torch.ops.vllm
        return ops.moe_forward if self._shared_experts is None else ops.moe_forward_shared

    return select_forward


def _backend_to_kernel_cls(original: Callable[..., Any]) -> Callable[..., Any]:
    def backend_to_kernel_cls(backend: Any) -> Any:
        from vllm.config.vllm import get_current_vllm_config_or_none

        from vllm_qllm.config import carried

        found = original(backend)
        data = carried(get_current_vllm_config_or_none())
        if backend.name != "CPU" or data is None or data["checkpoints"] != "expert":
            return found
        from vllm_qllm.kernels.moe.experts import PreemptibleExperts

        return [PreemptibleExperts, *found]  # vLLM takes the first that supports the layer

    return backend_to_kernel_cls


ARGS = "vllm.engine.arg_utils"
CLI = (
    Seam(
        ARGS, "EngineArgs", "add_cli_args", ("parser",), "the command-line options", _add_cli_args
    ),
    Seam(ARGS, "EngineArgs", "__init__", (), "the options of LLM(...)", _init),
    Seam(ARGS, "AsyncEngineArgs", "__init__", (), "the options of a server", _init),
    Seam(
        ARGS, "EngineArgs", "from_cli_args", ("cls", "args"), "reading the options", _from_cli_args
    ),
    Seam(
        ARGS,
        "EngineArgs",
        "create_engine_config",
        ("self", "usage_context", "headless"),
        "choosing scheduler, executor and worker extension",
        _create_engine_config,
    ),
)
# vLLM loads plugins inside EngineCore.__init__, so what is replaced in that process must be
# something that is called after it.
ENGINE = (
    Seam(
        "vllm.v1.engine.core",
        "EngineCoreProc",
        "run_busy_loop",
        ("self",),
        "noticing arrivals and running nested steps",
        _run_busy_loop,
    ),
    Seam(
        "vllm.v1.engine.core_client",
        "InprocClient",
        "__init__",
        ("self", "vllm_config", "executor_class", "log_stats", "executor_fail_callback"),
        "nested steps of an engine without a process of its own",
        _inproc_client_init,
    ),
    Seam(
        "vllm.v1.executor.multiproc_executor",
        "WorkerProc",
        "worker_busy_loop",
        ("self",),
        "serving RPCs while a step is suspended",
        _worker_busy_loop,
    ),
    Seam(
        "vllm.model_executor.layers.fused_moe.runner.moe_runner",
        "MoERunner",
        "_select_forward",
        ("self",),
        "checkpoints among the experts of a layer in compiled mode",
        _select_forward,
    ),
    Seam(
        "vllm.model_executor.layers.fused_moe.oracle.unquantized",
        "",
        "backend_to_kernel_cls",
        ("backend",),
        "experts that can stop between two pieces of their work",
        _backend_to_kernel_cls,
    ),
    Seam(
        "vllm.v1.worker.gpu_model_runner",
        "GPUModelRunner",
        "sample_tokens",
        ("self", "grammar_output"),
        "seeded requests whose prompt takes several steps, on the CPU",
        _sample_tokens,
    ),
)
# Replaced where it is used: vLLM's router imports the function by name.
API = (
    Seam(
        "vllm.entrypoints.serve.instrumentator.metrics",
        "",
        "get_prometheus_registry",
        (),
        "the metrics of classes on /metrics",
        _get_prometheus_registry,
    ),
    Seam(
        "prometheus_client.multiprocess",
        "MultiProcessCollector",
        "collect",
        ("self",),
        "the same with several API servers",
        _multiprocess_collect,
    ),
    Seam(
        "vllm.entrypoints.generate.base.serving",
        "GenerateBaseServing",
        "__init__",
        ("self", "engine_client", "models", "request_logger", "return_tokens_as_token_ids"),
        "service_tier, and refusing priorities that cannot be understood",
        _serving_init,
    ),
)
ALL = (*CLI, *ENGINE, *API)


def in_source(target: str, found: Any) -> Any:
    """Called by a vLLM built with ``patches/`` where it defines what a seam wraps.

    Args:
        target: the seam's name. One that this release does not know leaves ``found`` as it is.
        found: the function, or the class that holds it where it has no text of its own.
    """
    for seam in ALL:
        if str(seam) == target:
            if not isinstance(found, type):
                return seam.wrapped(found, SOURCE)
            seam.install_in(found, SOURCE)
    return found
