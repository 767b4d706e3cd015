# SPDX-License-Identifier: Apache-2.0
"""The arrival flag: one 64-bit number in shared memory, the step that is asked to suspend.

It names a step, not a wish: an arrival that is noticed just as a step ends would otherwise
suspend the next one, which may be the urgent request's own.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import weakref
from multiprocessing import shared_memory

from vllm_qllm.execution import agreement
from vllm_qllm.execution.agreement import Agreement

_CELL = struct.Struct("q")
SIZE = _CELL.size + agreement.SIZE


def _created() -> shared_memory.SharedMemory:
    """New shared memory whose pages all exist.

    Python only sets its size: on a full /dev/shm the first store would be a SIGBUS.
    """
    memory = shared_memory.SharedMemory(create=True, size=SIZE)
    try:
        with open(f"/dev/shm/{memory.name}", "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, SIZE)
    except OSError as error:
        memory.close()
        memory.unlink()
        if error.errno != errno.ENOSPC:
            raise
        reason = f"no room in /dev/shm for the {SIZE} bytes of the arrival flag"
        raise OSError(errno.ENOSPC, reason) from error
    return memory


def _remove(memory: shared_memory.SharedMemory, owner: int) -> None:
    if os.getpid() == owner:  # a forked child inherits exit handlers
        with contextlib.suppress(FileNotFoundError):  # somebody has cleaned /dev/shm
            memory.unlink()


class Flag:
    """Written by the engine, read by workers at every yield point.

    An aligned 8-byte store is atomic on every platform vLLM runs on, so no lock is needed.

    Args:
        name: of an existing flag to attach to; None creates one.

    Raises:
        OSError: there is no such flag, or no room for a new one.
    """

    def __init__(self, name: str | None = None) -> None:
        self._owner = name is None
        self._memory = _created() if name is None else shared_memory.SharedMemory(name)
        buffer = self._memory.buf
        assert buffer is not None
        self._buffer = buffer
        if self._owner:
            # Also if it is never closed: vLLM ends an engine in its own process, without
            # ``shutdown`` being called, by what that was before the engine was attached to.
            self._unlink = weakref.finalize(self, _remove, self._memory, os.getpid())
            self.raise_for(0)

    @property
    def name(self) -> str:
        """What another process attaches by."""
        return self._memory.name

    def agreement(self, rank: int, size: int) -> Agreement:
        """This worker's part in the decisions of a group of ``size`` workers."""
        return Agreement(self._memory, _CELL.size, rank, size)

    def raise_for(self, number: int) -> None:
        """Ask the step ``number`` to suspend at its next yield point."""
        _CELL.pack_into(self._buffer, 0, number)

    def names(self, number: int) -> bool:
        """Whether the step ``number`` is asked to suspend."""
        return bool(_CELL.unpack_from(self._buffer)[0] == number)

    def close(self) -> None:
        """Detach, and remove the shared memory when this process created it."""
        self._memory.close()
        if self._owner:
            self._unlink()  # does nothing the second time
