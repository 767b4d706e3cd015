# SPDX-License-Identifier: Apache-2.0
"""The stores of all engines of this server, read as one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from vllm_qllm.metrics.kept import kept
from vllm_qllm.metrics.layout import Layout
from vllm_qllm.metrics.store import LayoutMismatch, read

logger = logging.getLogger("vllm.qllm")


class Stores:
    """Numbers of several engines, summed.

    Args:
        classes: class names, most urgent first.
        prefix: of the stores, which are ``<prefix>.<engine index>``. Those that are there once are
            read ever after, whoever removes their names.

    Attributes:
        layout: what stands where.
    """

    def __init__(self, classes: Sequence[str], prefix: str) -> None:
        self.layout = Layout(classes)
        self._name = Path(prefix).name
        self._kept = kept(Path(prefix).parent)
        self._complained = False

    def read(self) -> list[float] | None:
        """All slots as they are now; None while no engine has begun to record."""
        return summed(self.each())

    def each(self) -> list[list[float]]:
        """The slots of every engine that records."""
        engines = []
        for index, path in self._kept.named(self._name).items():
            try:
                slots = read(self.layout, path)
            except LayoutMismatch as error:
                # The server's other metrics must stay readable.
                if not self._complained:
                    name = f"{self._name}.{index}"
                    logger.error("%s is left out of /metrics: %s", name, error)
                self._complained = True
                continue
            if slots is not None:
                engines.append(slots)
        return engines


def summed(engines: Sequence[Sequence[float]]) -> list[float] | None:
    """The slots of all engines together; None of none."""
    return [sum(numbers) for numbers in zip(*engines, strict=True)] if engines else None
