# SPDX-License-Identifier: Apache-2.0
"""Where vLLM's options are declared, read and turned into a configuration."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from vllm_qllm.seams.seam import Seam

ARGS = "vllm.engine.arg_utils"
Require = Callable[[], None]


def _add_cli_args(require: Require, original: Callable[..., Any]) -> Callable[..., Any]:
    def add_cli_args(parser: Any) -> Any:
        from vllm_qllm.cli import add_options

        return add_options(original(parser), require)

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
        from vllm_qllm.cli import OPTIONS, add_middleware, given
        from vllm_qllm.support import refuse_front_end

        engine_args = original(cls, args)
        asked = given(args)
        for option in OPTIONS:
            setattr(engine_args, option, asked.get(option))
        # Each of several API servers reads these arguments again, in a new process and before it
        # has loaded any plugin: what vLLM itself carries over must hold them too.
        if asked:
            refuse_front_end(args)
            args.additional_config = {**(args.additional_config or {}), **asked}
            add_middleware(args)
        return engine_args

    return from_cli_args


def _create_engine_config(require: Require, original: Callable[..., Any]) -> Callable[..., Any]:
    def create_engine_config(self: Any, *args: Any, **kwargs: Any) -> Any:
        from vllm_qllm.cli import config_of

        config = config_of(self)
        if config is None:
            return original(self, *args, **kwargs)
        from vllm_qllm.apply import apply
        from vllm_qllm.support import choose_model_runner

        require()
        if self.async_scheduling is None:
            self.async_scheduling = False  # a suspended step has no successor in flight
        choose_model_runner()
        vllm_config = original(self, *args, **kwargs)
        apply(vllm_config, config)
        return vllm_config

    return create_engine_config


def options(require: Require) -> tuple[Seam, ...]:
    """The seams of vLLM's options.

    Args:
        require: raises ConfigError when the installed vLLM is not the one we know.
    """
    add_cli_args = functools.partial(_add_cli_args, require)
    create_engine_config = functools.partial(_create_engine_config, require)
    return (
        Seam(
            ARGS,
            "EngineArgs",
            "add_cli_args",
            ("parser",),
            "the command-line options",
            add_cli_args,
        ),
        Seam(ARGS, "EngineArgs", "__init__", (), "the options of LLM(...)", _init),
        Seam(ARGS, "AsyncEngineArgs", "__init__", (), "the options of a server", _init),
        Seam(
            ARGS,
            "EngineArgs",
            "from_cli_args",
            ("cls", "args"),
            "reading the options",
            _from_cli_args,
        ),
        Seam(
            ARGS,
            "EngineArgs",
            "create_engine_config",
            ("self", "usage_context", "headless"),
            "choosing scheduler, executor and worker extension",
            create_engine_config,
        ),
    )
