# SPDX-License-Identifier: Apache-2.0
"""Numbers that all API servers of one machine share, found by name, changed under one lock."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path

# A digest of the name, then the numbers.
DIGEST, NUMBERS = 16, 20
ROW = DIGEST + 8 * NUMBERS
CAPACITY = 16384
_NUMBER = struct.Struct("d")


class TableFull(RuntimeError):
    """There have been more names than the table has rows."""


class Table:
    """Rows of floats, all 0 at first; a row is never given up.

    Several processes may map one file. Whoever reads numbers to decide on changing them holds
    the lock meanwhile, which takes microseconds and so may be done on an event loop.

    Args:
        path: the file, made when there is none; None: memory of this process alone.

    Raises:
        OSError: the file cannot be made, or there is no room for all of it.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        size = ROW * CAPACITY
        self._file: int | None = None
        if path is None:
            self._map = mmap.mmap(-1, size)
        else:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                # All of it now: see vllm_qllm.metrics.store.
                os.posix_fallocate(self._file, 0, size)
                self._map = mmap.mmap(self._file, size)
            except OSError:
                os.close(self._file)
                raise
        self._starts: dict[str, int] = {}

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other process from changing anything. Must not be nested, nor awaited in."""
        if self._file is None:
            yield
            return
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def row(self, *name: str) -> int:
        """The row of a name, a new one when it has none; to be called under the lock.

        Raises:
            TableFull: it has none, and there is none left.
        """
        start = self._find(name)
        if self._map[start : start + DIGEST] == bytes(DIGEST):
            self._map[start : start + DIGEST] = _digest(name)
        return start

    def numbers(self, *name: str) -> tuple[float, ...] | None:
        """The numbers of a name as they are now, None when it has no row."""
        try:
            start = self._find(name)
        except TableFull:
            return None
        if self._map[start : start + DIGEST] == bytes(DIGEST):
            return None
        return tuple(self.get(start, index) for index in range(NUMBERS))

    def get(self, row: int, index: int) -> float:
        """Number ``index`` of a row."""
        return float(_NUMBER.unpack_from(self._map, row + DIGEST + 8 * index)[0])

    def set(self, row: int, index: int, value: float) -> None:
        """Replace number ``index`` of a row."""
        _NUMBER.pack_into(self._map, row + DIGEST + 8 * index, value)

    def add(self, row: int, index: int, value: float) -> None:
        """Add to number ``index`` of a row."""
        self.set(row, index, self.get(row, index) + value)

    def close(self) -> None:
        """Let go of the file."""
        self._map.close()
        if self._file is not None:
            os.close(self._file)

    def _find(self, name: tuple[str, ...]) -> int:
        """Where the row of a name is, or would be: open addressing, by linear probing."""
        key = "\0".join(name)
        if key in self._starts:
            return self._starts[key]
        digest = _digest(name)
        first = int.from_bytes(digest[:8], "little") % CAPACITY
        for step in range(CAPACITY):
            start = (first + step) % CAPACITY * ROW
            held = self._map[start : start + DIGEST]
            if held == digest:
                self._starts[key] = start
                return start
            if held == bytes(DIGEST):
                return start
        raise TableFull(f"more than {CAPACITY} names since the server has started")


def _digest(name: tuple[str, ...]) -> bytes:
    return hashlib.blake2b("\0".join(name).encode(), digest_size=DIGEST).digest()
