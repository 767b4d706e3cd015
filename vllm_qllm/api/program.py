# SPDX-License-Identifier: Apache-2.0
"""The name of a program, as a request may say it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vllm.exceptions import VLLMValidationError

from vllm_qllm.api.notices import shown
from vllm_qllm.program_id import ALLOWED, MOST_CHARS, PROGRAM_ID, is_name


def check_program(request: Any) -> None:
    """Let nothing become the name of a program that the engine would work on for long.

    Raises:
        VLLMValidationError: it cannot be one.
    """
    params = getattr(request, "sampling_params", None)
    for place, extra in (
        ("vllm_xargs", getattr(request, "vllm_xargs", None)),
        ("sampling_params.extra_args", getattr(params, "extra_args", None)),
    ):
        name = extra.get(PROGRAM_ID) if isinstance(extra, Mapping) else None
        if not is_name(name):
            field = f"{place}.{PROGRAM_ID}"
            beginning = name[:MOST_CHARS] if isinstance(name, str | list) else name
            problem = f"{field} is {shown(beginning)}; allowed: {ALLOWED}"
            raise VLLMValidationError(problem, parameter=field)
