# SPDX-License-Identifier: Apache-2.0
"""When an engine last made progress, where others can read it though the engine stands still."""

from __future__ import annotations

import logging
import mmap
import struct
from pathlib import Path

from vllm_qllm import mapped_file

logger = logging.getLogger("vllm.qllm")

# ``time.monotonic()`` seconds, which is one clock for all processes of a machine; negative when
# there was nothing left to do, 0 before the first beat. One number, to be read in one piece.
_BEAT = struct.Struct("d")


class Pulse:
    """The engine's side: a step that began, ended, was suspended or goes on is a beat.

    Not thread-safe: one thread calls it.

    Args:
        path: of the file, which must not exist; None keeps it to this process, and so does one that
            cannot be written, after a warning.
    """

    def __init__(self, path: str | Path | None) -> None:
        self._map: mmap.mmap | bytearray = bytearray(_BEAT.size)
        if path is not None:
            try:
                self._map = mapped_file.create(path, _BEAT.size, b"")
            except OSError as error:
                logger.warning("An engine that stands still will not be noticed: %s.", error)

    def beat(self, now: float, busy: bool) -> None:
        """There was progress ``now``; ``busy``: and there is work that should make more."""
        _BEAT.pack_into(self._map, 0, now if busy else -now)

    def close(self) -> None:
        """Let go of the file, which stays for readers; its directory's owner removes it."""
        if isinstance(self._map, mmap.mmap):
            self._map.close()


class PulseReader:
    """The reader's side.

    Args:
        path: of the file, which may come to exist later. Once it does, it is held open, so that it
            does not matter who removes its name.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._map: mmap.mmap | None = None
        self.read()

    def read(self) -> tuple[float, bool]:
        """When the last beat was, 0 before the first one, and whether there was work left then."""
        if self._map is None:
            try:
                with self._path.open("rb") as file:
                    self._map = mmap.mmap(file.fileno(), _BEAT.size, access=mmap.ACCESS_READ)
            except (OSError, ValueError):  # no engine has begun to record, or records nowhere
                return 0.0, False
        (beat,) = _BEAT.unpack_from(self._map)
        return abs(beat), beat > 0
