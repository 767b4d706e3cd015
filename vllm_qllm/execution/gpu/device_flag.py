# SPDX-License-Identifier: Apache-2.0
"""The flag that kernels read: one number in the GPU's memory, the launch that is asked to stop.

It is not the arrival flag itself: every program reads it for every tile, and reads of host memory
take about a microsecond each, one after another. The worker, which waits for the kernel anyway,
copies what it finds. A number is that of a launch, so nothing has to be cleared before a stopped
one is launched again.
"""

from __future__ import annotations

import itertools

import torch


class DeviceFlag:
    """One for each worker.

    Args:
        device: the GPU.

    Attributes:
        tensor: [1] int64, on the device.
    """

    def __init__(self, device: torch.device) -> None:
        self.tensor = torch.zeros(1, dtype=torch.int64, device=device)
        self._source = torch.zeros(1, dtype=torch.int64, pin_memory=True)
        # Not the stream of the steps: there it would come after the kernel that it is to stop.
        self._stream = torch.cuda.Stream(device, priority=-1)
        self._numbers = itertools.count(1)

    def new_number(self) -> int:
        """A number that no launch has had."""
        return next(self._numbers)

    def raise_for(self, number: int) -> None:
        """Ask a launch to stop; takes some ten microseconds to reach the device."""
        self._source[0] = number
        with torch.cuda.stream(self._stream):
            self.tensor.copy_(self._source, non_blocking=True)
