# SPDX-License-Identifier: Apache-2.0
"""The attributes of vLLM that are wrapped, each in one place and for one reason.

The plugin replaces them at run time. A vLLM built with ``patches/`` wraps them where they are
defined, with the same functions, and leaves nothing to replace.
"""

from __future__ import annotations

from typing import Any

from vllm_qllm import contract
from vllm_qllm.seams.engine import ENGINE
from vllm_qllm.seams.experts import EXPERTS
from vllm_qllm.seams.http import HTTP
from vllm_qllm.seams.options import options
from vllm_qllm.seams.seam import MARK, RUN_TIME, SOURCE, Seam

__all__ = [
    "ALL",
    "ENGINE",
    "EXPERTS",
    "HTTP",
    "MARK",
    "OPTIONS",
    "RUN_TIME",
    "SOURCE",
    "Seam",
    "in_source",
    "require",
    "violations",
]


def violations() -> list[str]:
    """What differs from the vLLM that this release was made for; empty when nothing does."""
    return contract.violations(ALL)


def require() -> None:
    """Raise ConfigError when the installed vLLM is not the one we know."""
    contract.require(ALL)


OPTIONS = options(require)
ALL = (*OPTIONS, *ENGINE, *EXPERTS, *HTTP)


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
