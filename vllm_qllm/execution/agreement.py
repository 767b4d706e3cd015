# SPDX-License-Identifier: Apache-2.0
"""All ranks of a step stop at the same yield point: rank 0 decides, the others read.

Ranks run the same steps, so they meet the same yield points in the same order and can number them
alone. Rank 0 writes its decision for yield point number n into a slot of shared memory; the others
wait for it at their own n-th yield point. That costs no collective, and little waiting: the ranks
meet in an all-reduce once a layer anyway.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from multiprocessing import shared_memory

_CELL = struct.Struct("q")
# A rank is never this many yield points ahead of another: they meet once a layer.
SLOTS = 256
SIZE = SLOTS * _CELL.size


class Agreement:
    """One worker's part in the decisions of a group.

    Args:
        memory: at least ``SIZE`` bytes after ``offset``, zeroed, shared by all ranks of the group.
        offset: of the first of these bytes.
        rank: of this worker within the group.
        size: number of workers in the group.
    """

    def __init__(
        self, memory: shared_memory.SharedMemory, offset: int, rank: int, size: int
    ) -> None:
        self._buffer = memory.buf if size > 1 else None  # one worker decides alone
        self._offset = offset
        self._leads = rank == 0
        self._number = 0

    def decide(self, wanted: Callable[[], bool]) -> bool:
        """Whether to suspend at this yield point; ``wanted`` is asked on rank 0 alone."""
        if self._buffer is None:
            return wanted()
        self._number += 1
        place = self._offset + self._number % SLOTS * _CELL.size
        if self._leads:
            decision = wanted()
            _CELL.pack_into(self._buffer, place, self._number << 1 | decision)
            return decision
        while True:
            value = _CELL.unpack_from(self._buffer, place)[0]
            if value >> 1 == self._number:
                return bool(value & 1)
            time.sleep(0)
