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
