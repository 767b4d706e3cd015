# SPDX-License-Identifier: Apache-2.0
"""How a running kernel of the experts is stopped, and what is more urgent let through."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from vllm_qllm.execution.gpu.device_flag import DeviceFlag
from vllm_qllm.execution.gpu.run_ahead import POLL_SECONDS, Mark
from vllm_qllm.execution.protocol import Place

# A launch is left alone for so long: one that is stopped at once, again and again, gets nowhere.
LEAST_SECONDS = 2e-4

if TYPE_CHECKING:
    from vllm_qllm.execution.session import Session
    from vllm_qllm.kernels.moe.triton_work import Stop


class Interruption:
    """Of the experts of one layer; see ``kernels.moe.triton_experts``.

    Args:
        session: whose step may be suspended.
        flag: that the kernel reads.
        place: of these experts in the model.
        new_mark: makes a mark in the device's queue of work.
    """

    def __init__(
        self,
        session: Session,
        flag: DeviceFlag,
        place: Place,
        new_mark: Callable[[], Mark] = torch.cuda.Event,
    ) -> None:
        self._session = session
        self._flag = flag
        self._place = place
        self._new_mark = new_mark
        self._number = 0
        self._mark: Mark | None = None

    def stop(self) -> Stop | None:
        """What the next launch is to look at; None if its step is not to be suspended."""
        from vllm_qllm.kernels.moe.triton_work import Stop

        if not self._session.suspendable:
            return None
        self._number = self._flag.new_number()
        return Stop(self._flag.tensor, self._number)

    def mark(self) -> None:
        """Note the place in the stream that :meth:`wait` waits for."""
        self._mark = self._new_mark()
        self._mark.record()

    def wait(self) -> None:
        """Wait until the device passes the mark; ask the launch to stop if the step is due."""
        assert self._mark is not None
        asked, earliest = False, time.monotonic() + LEAST_SECONDS
        while not self._mark.query():
            if not asked and time.monotonic() >= earliest and self._session.is_due():
                self._flag.raise_for(self._number)
                asked = True
            time.sleep(POLL_SECONDS)

    def suspend(self) -> None:
        """Run what is more urgent."""
        self._session.suspend(self._place)
