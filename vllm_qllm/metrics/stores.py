# SPDX-License-Identifier: Apache-2.0
"""The stores of all engines of this server, read as one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from operator import add

from vllm_qllm.metrics import location
from vllm_qllm.metrics.layout import Layout
from vllm_qllm.metrics.store import LayoutMismatch, read

logger = logging.getLogger("vllm.qllm")


class Stores:
    """Numbers of several engines, summed.

    Args:
        classes: class names, most urgent first.
        prefix: of the stores, which are ``<prefix>.<engine index>``.

    Attributes:
        layout: what stands where.
    """

    def __init__(self, classes: Sequence[str], prefix: str) -> None:
        self.layout = Layout(classes)
        self._prefix = prefix
        self._complained = False

    def read(self) -> list[float] | None:
        """All slots as they are now; None while no engine has begun to record."""
        total: list[float] | None = None
        for path in location.stores(self._prefix):
            try:
                slots = read(self.layout, path)
            except LayoutMismatch as error:
                # The server's other metrics must stay readable.
                if not self._complained:
                    logger.error("Left out of /metrics: %s", error)
                self._complained = True
                continue
            if slots is None:
                continue
            total = slots if total is None else list(map(add, total, slots))
        return total
