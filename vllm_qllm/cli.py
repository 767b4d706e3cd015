# SPDX-License-Identifier: Apache-2.0
"""The two options, on ``vllm serve`` and in ``LLM(...)``, and the configuration they ask for."""

from __future__ import annotations

import argparse
from typing import Any

from vllm_qllm.config import ConfigError, PriorityConfig
from vllm_qllm.contract import require

OPTIONS = ("priority_policy", "priority_config")


def add_options(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add ``--priority-policy`` and ``--priority-config``."""
    group = parser.add_argument_group(
        title="vllm-qllm", description="Priority classes and in-step preemption."
    )
    group.add_argument(
        "--priority-policy",
        type=_of_known_vllm,
        metavar="{step,strict,MODULE:CLASS}",
        default=None,
        help="Serve latency-sensitive (priority <= 0) before best-effort (priority > 0) requests. "
        "strict preempts best-effort work inside a step, step between steps only.",
    )
    group.add_argument(
        "--priority-config",
        type=_of_known_vllm,
        metavar="FILE_OR_JSON",
        default=None,
        help="Classes and limits: JSON text, or the path of a JSON file.",
    )
    return parser


def _of_known_vllm(value: str) -> str:
    # Refused here as well as in the engine's configuration: here it is one sentence, there it
    # comes with vLLM's stack trace.
    try:
        require()
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return value


def config_of(engine_args: Any) -> PriorityConfig | None:
    """The configuration that an ``EngineArgs`` asks for, None when it asks for none.

    The options are attributes of their own or, for callers that build ``EngineArgs`` before
    plugins are loaded, entries of ``additional_config``.

    Raises:
        ConfigError: what it asks for is not valid.
    """
    extra = engine_args.additional_config or {}
    asked = [getattr(engine_args, option, None) for option in OPTIONS]
    policy, source = (
        value if value is not None else extra.get(option)
        for option, value in zip(OPTIONS, asked, strict=True)
    )
    if policy is None and source is None:
        return None
    return PriorityConfig.load(source, policy)


def add_middleware(args: argparse.Namespace) -> None:
    """Let a server with tenants look at each request first, as if ``--middleware`` said so.

    Args:
        args: the parsed command line; what it asks for is valid, or refused later.

    Raises:
        ConfigError: there are tenants, and keys that vLLM itself would look at.
    """
    if not hasattr(args, "middleware"):
        return  # not a server
    from vllm import envs

    config = PriorityConfig.load(args.priority_config, args.priority_policy)
    if config.tenants is None:
        return
    if args.api_key or envs.VLLM_API_KEY:
        raise ConfigError(
            "priority config: tenants is set beside --api-key or VLLM_API_KEY; allowed: one of "
            "them, as a request has one key (python -m vllm_qllm.keys adds it to the tenants file)"
        )
    from vllm_qllm.access.middleware import PATH

    if PATH not in args.middleware:
        args.middleware = [*args.middleware, PATH]
