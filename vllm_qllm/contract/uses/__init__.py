# SPDX-License-Identifier: Apache-2.0
"""Everything of vLLM that this package relies on, by the part of vLLM that it belongs to."""

from vllm_qllm.contract.dependency import Dependency
from vllm_qllm.contract.uses import (
    engine_core,
    executors,
    experts,
    grammars,
    http,
    intake,
    kv_blocks,
    kv_connector,
    model_runner,
    options,
    outputs,
    scheduler,
)

ALL: tuple[Dependency, ...] = (
    *scheduler.DEPENDENCIES,
    *kv_blocks.DEPENDENCIES,
    *kv_connector.DEPENDENCIES,
    *engine_core.DEPENDENCIES,
    *executors.DEPENDENCIES,
    *grammars.DEPENDENCIES,
    *model_runner.DEPENDENCIES,
    *experts.DEPENDENCIES,
    *options.DEPENDENCIES,
    *outputs.DEPENDENCIES,
    *http.DEPENDENCIES,
    *intake.DEPENDENCIES,
)
