# SPDX-License-Identifier: Apache-2.0
"""Where the stores are: a fresh directory for each server, known to all of its processes."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import tempfile
from typing import NamedTuple

from vllm_qllm.config import PriorityConfig

# Not VLLM_…: vLLM warns about each of those that it does not know.
VARIABLE = "QLLM_METRICS"

logger = logging.getLogger("vllm.qllm")


class Prepared(NamedTuple):
    """What this process was prepared for.

    Attributes:
        classes: names of the classes.
        prefix: of the stores.
        timeline: whether engines record what they do, too.
    """

    classes: tuple[str, ...]
    prefix: str
    timeline: bool = False


_prepared: Prepared | None = None


def prepare(config: PriorityConfig, *, inherit: bool = False) -> str:
    """Choose where engines that are started from now on record; called once a server.

    The environment variable ``QLLM_METRICS`` carries the choice to child processes. It is
    not enough to say that this process serves with a policy: any program that a server starts
    inherits it.

    Args:
        config: for the names of the classes.
        inherit: this process is one of several API servers, whose parent has chosen already.

    Returns:
        The prefix of the stores; "" when there is no place for them, after a warning.
    """
    global _prepared
    prefix = os.environ.get(VARIABLE, "") if inherit else ""
    if not prefix:
        try:
            directory = tempfile.mkdtemp(prefix="vllm-qllm-")  # 0700
        except OSError as error:
            os.environ.pop(VARIABLE, None)
            _prepared = None
            logger.warning("Metrics of priority classes are left out of /metrics: %s.", error)
            return ""
        atexit.register(_remove, directory, os.getpid())
        prefix = os.environ[VARIABLE] = os.path.join(directory, "metrics")
    _prepared = Prepared(tuple(c.name for c in config.classes), prefix, bool(config.timeline))
    return prefix


def prepared() -> Prepared | None:
    """What :func:`prepare` chose in this very process; None: no policy is on here."""
    return _prepared


def store_path(engine_index: int = 0) -> str | None:
    """Where the engine in this process records; None: nowhere."""
    prefix = os.environ.get(VARIABLE)
    return f"{prefix}.{engine_index}" if prefix else None


def pulse_path(engine_index: int = 0) -> str | None:
    """Where the engine in this process says that it makes progress; None: nowhere."""
    prefix = os.environ.get(VARIABLE)
    return pulse_of(prefix, engine_index) if prefix else None


def pulse_of(prefix: str, engine_index: int = 0) -> str:
    """The same for a server with this prefix."""
    return f"{prefix}.{engine_index}.pulse"


def beside(name: str) -> str | None:
    """Path of another file that all processes of this server share; None: there is no place."""
    prefix = os.environ.get(VARIABLE)
    return os.path.join(os.path.dirname(prefix), name) if prefix else None


def _remove(directory: str, owner: int) -> None:
    if os.getpid() == owner:  # a forked child inherits exit handlers
        shutil.rmtree(directory, ignore_errors=True)
