# SPDX-License-Identifier: Apache-2.0
"""Numbers that all API servers of one machine share, found by name, changed under one lock."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import mmap
import os
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

# A digest of the name, then what is counted, then what is measured.
DIGEST, COUNTS, MEASURES = 16, 20, 4
ROW = DIGEST + 8 * (COUNTS + MEASURES)
CAPACITY = 16384
_COUNT, _COUNTS, _MEASURE = struct.Struct("q"), struct.Struct(f"{COUNTS}q"), struct.Struct("d")
_NOBODY = bytes(DIGEST)


class TableFull(RuntimeError):
    """All rows are taken."""


class CounterTable:
    """Rows of integers and of floats, all 0 at first.

    Several processes may map one file. Whoever reads numbers to decide on changing them holds
    the lock meanwhile, which takes microseconds and so may be done on an event loop. What a
    count is added to and taken from again is an integer, so that nothing is lost by rounding.

    Args:
        path: the file, made when there is none; None: memory of this process alone.

    Raises:
        OSError: the file cannot be made, or there is no room for all of it.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        size = ROW * CAPACITY
        self._file: int | None = None
        # A lock on a file holds off other processes, not other threads of this one.
        self._threads = threading.Lock()
        if path is None:
            self._map = mmap.mmap(-1, size)
        else:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                # All of it now: see vllm_qllm.mapped_file.
                os.posix_fallocate(self._file, 0, size)
                self._map = mmap.mmap(self._file, size)
            except OSError:
                os.close(self._file)
                raise

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep everybody else from changing anything. Must not be nested, nor awaited in."""
        with self._threads:
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

        It is this name's while the lock is held.

        Raises:
            TableFull: it has none, and there is none left.
        """
        start = self._find(_digest(name))
        if self._holder(start) == _NOBODY:
            self._map[start : start + DIGEST] = _digest(name)
        return start

    def counts(self, *name: str) -> tuple[int, ...] | None:
        """What is counted for a name now, None when it has no row; under the lock."""
        try:
            start = self._find(_digest(name))
        except TableFull:
            return None
        if self._holder(start) == _NOBODY:
            return None
        return _COUNTS.unpack_from(self._map, start + DIGEST)

    def count(self, row: int, index: int) -> int:
        """Count ``index`` of a row."""
        return int(_COUNT.unpack_from(self._map, row + DIGEST + 8 * index)[0])

    def add(self, row: int, index: int, number: int) -> None:
        """Add to count ``index`` of a row, which does not go below 0."""
        found = max(0, self.count(row, index) + number)
        _COUNT.pack_into(self._map, row + DIGEST + 8 * index, found)

    def measure(self, row: int, index: int) -> float:
        """Measure ``index`` of a row."""
        return float(_MEASURE.unpack_from(self._map, row + DIGEST + 8 * (COUNTS + index))[0])

    def set_measure(self, row: int, index: int, value: float) -> None:
        """Replace measure ``index`` of a row."""
        _MEASURE.pack_into(self._map, row + DIGEST + 8 * (COUNTS + index), value)

    def taken(self) -> int:
        """How many rows have a name."""
        return sum(self._holder(start) != _NOBODY for start in range(0, len(self._map), ROW))

    def keep(self, names: Iterable[tuple[str, ...]], busy: Callable[[int], bool]) -> None:
        """Give up the rows of all other names, those that are busy left out; under the lock.

        Args:
            names: whose rows stay.
            busy: whether a row, which is its argument, has to stay in any case.
        """
        kept = {_digest(name) for name in names}
        stay = [
            self._map[start : start + ROW]
            for start in range(0, len(self._map), ROW)
            if (holder := self._holder(start)) != _NOBODY and (holder in kept or busy(start))
        ]
        # Where a row is depends on those before it: all are put again. What is found by probing
        # must never be half of the old and half of the new.
        fresh = bytearray(len(self._map))
        for row in stay:
            start = next(s for s in _places(row[:DIGEST]) if fresh[s : s + DIGEST] == _NOBODY)
            fresh[start : start + ROW] = row
        self._map[:] = bytes(fresh)

    def close(self) -> None:
        """Let go of the file."""
        self._map.close()
        if self._file is not None:
            os.close(self._file)

    def _holder(self, start: int) -> bytes:
        return self._map[start : start + DIGEST]

    def _find(self, digest: bytes) -> int:
        """Where the row of a name is, or would be: open addressing, by linear probing."""
        for start in _places(digest):
            if self._holder(start) in (digest, _NOBODY):
                return start
        raise TableFull(f"all {CAPACITY} rows are taken")


def _places(digest: bytes) -> Iterator[int]:
    first = int.from_bytes(digest[:8], "little") % CAPACITY
    return ((first + step) % CAPACITY * ROW for step in range(CAPACITY))


@functools.lru_cache(maxsize=CAPACITY)
def _digest(name: tuple[str, ...]) -> bytes:
    return hashlib.blake2b("\0".join(name).encode(), digest_size=DIGEST).digest()
