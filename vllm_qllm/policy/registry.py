# SPDX-License-Identifier: Apache-2.0
"""From the name of a policy to its class."""

from __future__ import annotations

import importlib

from vllm_qllm.config import ConfigError, PriorityConfig
from vllm_qllm.policy.base import Policy
from vllm_qllm.policy.step import StepPolicy
from vllm_qllm.policy.strict import StrictPolicy

BUILT_IN: dict[str, type[Policy]] = {"step": StepPolicy, "strict": StrictPolicy}


def resolve(config: PriorityConfig) -> Policy:
    """Instantiate the configured policy.

    Raises:
        ConfigError: the module or class cannot be imported, or it is not a policy.
    """
    if config.policy in BUILT_IN:
        return BUILT_IN[config.policy](config)
    module_name, _, class_name = config.policy.partition(":")
    try:
        factory = getattr(importlib.import_module(module_name), class_name)
    except Exception as error:  # a module of the user's own may raise anything
        raise ConfigError(
            f"priority config: policy {config.policy!r} cannot be loaded ({error!r}); allowed: "
            f"{', '.join(BUILT_IN)}, or module:Class that can be imported"
        ) from error
    try:
        policy: Policy = factory(config)
    except Exception as error:
        raise ConfigError(
            f"priority config: policy {config.policy!r} cannot be built from a PriorityConfig "
            f"({error!r})"
        ) from error
    if not callable(getattr(policy, "plan", None)):
        raise ConfigError(f"priority config: policy {config.policy!r} has no method plan(view)")
    return policy
