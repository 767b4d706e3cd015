# SPDX-License-Identifier: Apache-2.0
"""The two options, on ``vllm serve`` and in ``LLM(...)``, and the configuration they ask for."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from typing import Any

from vllm_qllm.config import CARRIER, ConfigError, PriorityConfig
from vllm_qllm.config.rule import show

OPTIONS = ("priority_policy", "priority_config")


def add_options(
    parser: argparse.ArgumentParser, require: Callable[[], None]
) -> argparse.ArgumentParser:
    """Add ``--priority-policy`` and ``--priority-config``.

    Args:
        parser: of vLLM's options.
        require: raises ConfigError when the installed vLLM is not the one we know.
    """
    of_known_vllm = functools.partial(_of_known_vllm, require)
    group = parser.add_argument_group(
        title="vllm-qllm", description="Priority classes and in-step preemption."
    )
    group.add_argument(
        "--priority-policy",
        type=of_known_vllm,
        metavar="{step,strict,MODULE:CLASS}",
        default=None,
        help="Serve latency-sensitive (priority <= 0) before best-effort (priority > 0) requests. "
        "strict preempts best-effort work inside a step, step between steps only.",
    )
    group.add_argument(
        "--priority-config",
        type=of_known_vllm,
        metavar="FILE_OR_JSON",
        default=None,
        help="Classes and limits: JSON text, or the path of a JSON file.",
    )
    return parser


def _of_known_vllm(require: Callable[[], None], value: str) -> str:
    # Refused here as well as in the engine's configuration: here it is one sentence, there it
    # comes with vLLM's stack trace.
    try:
        require()
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return value


def given(holder: Any) -> dict[str, Any]:
    """The options that somebody gave, whichever way: each of them by its name.

    They are attributes of their own, or entries of ``additional_config``: of callers that build
    ``EngineArgs`` before plugins are loaded, and of processes that vLLM starts.

    Args:
        holder: an ``EngineArgs``, or a parsed command line.

    Raises:
        ConfigError: one was given both ways, and not the same; or what only this package may say.
    """
    extra = getattr(holder, "additional_config", None)
    extra = extra if isinstance(extra, dict) else {}
    if CARRIER in extra:
        raise ConfigError(
            f"additional_config: {CARRIER} is {show(extra[CARRIER])}; allowed: not to be there, as "
            f"the whole configuration is carried in it (give {' and '.join(OPTIONS)})"
        )
    found = {}
    for option in OPTIONS:
        values = [getattr(holder, option, None), extra.get(option)]
        said = [value for value in values if value is not None]
        if len(said) > 1 and said[0] != said[1]:
            raise ConfigError(
                f"additional_config: {option} is {show(said[1])} but --{option.replace('_', '-')} "
                f"is {show(said[0])}; allowed: name it once, or the same twice"
            )
        if said:
            found[option] = said[0]
    return found


def config_of(engine_args: Any) -> PriorityConfig | None:
    """The configuration that an ``EngineArgs`` asks for, None when it asks for none.

    Raises:
        ConfigError: what it asks for is not valid.
    """
    asked = given(engine_args)
    if not asked:
        return None
    return PriorityConfig.load(asked.get("priority_config"), asked.get("priority_policy"))


def add_middleware(args: argparse.Namespace) -> None:
    """Let a server with tenants look at each request first, as if ``--middleware`` said so.

    Args:
        args: the parsed command line that asks for a policy.

    Raises:
        ConfigError: there are tenants, and keys that vLLM itself would look at.
    """
    if not hasattr(args, "middleware"):
        return  # not a server
    from vllm import envs

    config = config_of(args)
    if config is None or config.tenants is None:
        return
    if args.api_key or envs.VLLM_API_KEY:
        raise ConfigError(
            "priority config: tenants is set beside --api-key or VLLM_API_KEY; allowed: one of "
            "them, as a request has one key (python -m vllm_qllm.keys adds it to the tenants file)"
        )
    from vllm_qllm.access.middleware import PATH

    if PATH not in args.middleware:
        args.middleware = [*args.middleware, PATH]
