# SPDX-License-Identifier: Apache-2.0
"""What clients call on the engine beside requests, and what each call needs of steps in flight.

vLLM takes its input between two steps, when none is in flight. Here it is also taken while steps
are suspended, and a call that only asks need not wait until the outermost one has ended. One that
changes what a step computes with must, and then the steps end as soon as they can.
"""

from __future__ import annotations

from enum import Enum, auto
from inspect import signature
from typing import Any

from vllm.v1.engine import EngineCoreRequestType
from vllm.v1.engine.core import EngineCoreProc

Item = tuple[EngineCoreRequestType, Any]


class Need(Enum):
    """What must have happened to the steps in flight before a call is carried out."""

    NOTHING = auto()
    # No step is in flight. Requests go on afterwards.
    NO_STEP = auto()
    # The same, and all requests end with it: what their steps have computed is of no use.
    NO_REQUEST = auto()


# Why a suspended step does not mind the call, or the call the step.
AT_ONCE = {
    "get_supported_tasks": "reads what does not change",
    "is_scheduler_paused": "reads the scheduler's state",
    "is_sleeping": "reads the scheduler's state and the executor's",
    "get_weight_version": "reads a name",
    "list_loras": "reads which adapters are loaded",
    "compute_weight_checksums": "reads the weights, which no step changes",
    "save_sharded_state": "reads the weights, which no step changes",
    "resume_scheduler": "is looked at by the next schedule()",
    "wake_up": "an executor that has a step in flight is awake: only the scheduler is resumed",
    "release_kv_cache_memory": "is refused while there are requests",
    "profile": "the profiler starts and stops anywhere",
    "reset_mm_cache": "holds inputs of requests to come: those of a step are with the runner",
}
# Why not.
BETWEEN_STEPS = {
    "pause_scheduler": "promises that nothing is computed any more",
    "sleep": "takes the device's memory",
    "reset_prefix_cache": "takes the blocks of running requests, or the host's",
    "reset_encoder_cache": "takes what a prompt's next chunk may need",
    "add_lora": "may take the slot of an adapter that the step uses, or replace its weights",
    "remove_lora": "may take an adapter that the step uses",
    "pin_lora": "may take the slot of an adapter that the step uses",
    "execute_dummy_batch": "uses the runner's buffers",
    "collective_rpc": "may do anything to the workers",
    "set_weight_version": "is told with the tokens of a step: those of one before have the old one",
    "reinitialize_distributed": "replaces the workers",
    "commit_prepared_elastic_ep": "replaces the workers",
}


def is_call(item: Item) -> bool:
    """Whether an item of the engine's input queue is a call, or the word that it is to end."""
    return item[0] in (EngineCoreRequestType.UTILITY, EngineCoreRequestType.WAKEUP)


def need_of(item: Item) -> Need:
    """What an item of the engine's input queue needs.

    A call that is not listed here needs that no step is in flight, as in vLLM itself.
    """
    kind, payload = item
    if kind != EngineCoreRequestType.UTILITY:
        return Need.NOTHING
    _, _, method, args = payload
    if method in AT_ONCE:
        return Need.NOTHING
    given = _arguments(method, args)
    mode = given.get("mode")
    if mode == "wait":
        return Need.NOTHING  # requests go on until they end, and only then it is carried out
    if mode == "abort":
        return Need.NO_REQUEST
    if method == "reset_prefix_cache" and not any(given.values()):
        return Need.NOTHING  # is refused while requests hold blocks
    return Need.NO_STEP


def _arguments(method: str, args: Any) -> dict[str, Any]:
    """Arguments of a call by name, with those that it leaves out; empty if vLLM will refuse it."""
    function = getattr(EngineCoreProc, method, None)
    try:
        bound = signature(function).bind(None, *args)  # type: ignore[arg-type]
    except TypeError:
        return {}
    bound.apply_defaults()
    del bound.arguments["self"]
    return bound.arguments
