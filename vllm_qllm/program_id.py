# SPDX-License-Identifier: Apache-2.0
"""The name that a request gives its program, and whose name that is.

It travels in ``vllm_xargs``, which vLLM hands on as the extra arguments of a request's sampling.
Any client can send any name, so a server with tenants puts the tenant before it.
"""

from __future__ import annotations

import copy
from typing import Any

from vllm.sampling_params import SamplingParams

PROGRAM_ID = "program_id"
# The engine makes a key of a name in its own thread, so that must not take long.
MOST_CHARS = 256
ALLOWED = f"a string of at most {MOST_CHARS} characters, or a number of at most 64 bits"


def program_id(params: SamplingParams | None) -> Any:
    """What names the program, of any type; None where nothing does."""
    extra = params.extra_args if params else None
    return extra.get(PROGRAM_ID) if extra else None


def is_name(name: Any) -> bool:
    """Whether a program can have that name; None, which names none, is one."""
    if isinstance(name, str):
        return len(name) <= MOST_CHARS
    if isinstance(name, int):
        return -(2**63) <= name < 2**64
    return name is None or isinstance(name, float)


def owned(params: SamplingParams, tenant: str) -> SamplingParams:
    """These parameters with the program as one of ``tenant``; themselves if they name none.

    Whatever a client names becomes the second of two parts, so it cannot name another's program.
    """
    name = program_id(params)
    if name is None:
        return params
    params = copy.copy(params)  # a handler may use its own for other calls
    params.extra_args = {**(params.extra_args or {}), PROGRAM_ID: [tenant, name]}
    return params
