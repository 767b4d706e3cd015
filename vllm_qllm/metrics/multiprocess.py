# SPDX-License-Identifier: Apache-2.0
"""The directory in which several API servers count what vLLM counts (PROMETHEUS_MULTIPROC_DIR).

It is one of temporary files, unless it was named. Where it is cleaned, the numbers of vLLM are gone
until the server starts again; where it is removed, ``/metrics`` would have no answer at all.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from vllm_qllm.metrics import location

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

logger = logging.getLogger("vllm.qllm")

_seen: set[Path] = set()


def restore(path: str | None = None) -> None:
    """Make the directory again where it is missing, and say so, when a policy is on here.

    Args:
        path: of it; None for what the environment says.
    """
    name = path or os.environ.get(VARIABLE)
    if location.prepared() is None or not name:
        return
    directory = Path(name)
    if any(directory.glob("*.db")):
        _seen.add(directory)
        return
    if directory in _seen:
        _seen.remove(directory)  # once
        logger.error(
            "%s was cleaned under this server: vLLM's own metrics are gone until it starts again, "
            "those of priority classes are not; set %s to a directory that nobody cleans.",
            directory,
            VARIABLE,
        )
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        logger.error("%s cannot be made again: %s.", directory, error)
