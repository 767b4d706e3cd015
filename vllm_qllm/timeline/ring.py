# SPDX-License-Identifier: Apache-2.0
"""The last events of one engine: records of equal size in a mapped file, the oldest overwritten."""

from __future__ import annotations

import json
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vllm_qllm import mapped_file
from vllm_qllm.timeline.events import CODES, KINDS, MAX_VALUES, Kind

MAGIC = b"qllmtl\0\1"
# Magic, capacity in records, records written ever, bytes of the description that follows.
HEADER = struct.Struct("<8sQQQ")
_WRITTEN = struct.Struct("<Q")
_WRITTEN_AT = 16
DESCRIPTION = 4096 - HEADER.size
LABEL = 56
# Number of the record (from 1), nanoseconds, kind, level, subject, values, label.
RECORD = struct.Struct(f"<QqBB6xq{MAX_VALUES}q{LABEL}s")
# The same for readers, to whom it matters that many records are looked at in a millisecond.
ROW = np.dtype(
    {
        "names": ["number", "time", "kind", "level", "subject", "values", "label"],
        "formats": ["<u8", "<i8", "u1", "u1", "<i8", ("<i8", MAX_VALUES), f"S{LABEL}"],
        "offsets": [0, 8, 16, 17, 24, 32, 32 + 8 * MAX_VALUES],
        "itemsize": RECORD.size,
    }
)
_NOTHING = (0,) * MAX_VALUES

Rows = npt.NDArray[np.void]


class NoRing(RuntimeError):
    """The file is not a ring of this version; the message goes on after its name."""


class Record(NamedTuple):
    """One event as it is stored.

    Attributes:
        number: counts up from 1 in each engine; a gap says that events were overwritten.
        time: ``time.monotonic_ns()``.
        kind: what happened.
        level: class of the step, request or queue.
        subject: number of the step or request.
        values: numbers, in the order of ``kind.values``.
        label: name of the request on its arrival, cut at 56 bytes; else "".
    """

    number: int
    time: int
    kind: Kind
    level: int
    subject: int
    values: tuple[int, ...]
    label: str


@dataclass(frozen=True)
class Contents:
    """What a reader finds.

    Attributes:
        description: what the writer said about itself, a JSON object.
        written: number of events that were ever recorded.
        rows: those that are left, oldest first, as an array of ROW.
    """

    description: dict[str, Any]
    written: int
    rows: Rows


class Ring:
    """The writer's side. Not thread-safe: one thread calls it.

    Args:
        path: of the file, which must not exist.
        capacity: number of events that are kept.
        description: a JSON object of up to 4 kB for readers.

    Raises:
        OSError: the file cannot be made, or there is no room for all of it.
    """

    def __init__(self, path: str | Path, capacity: int, description: dict[str, object]) -> None:
        text = json.dumps(description).encode()
        assert len(text) <= DESCRIPTION, "classes have short names, and there are few"
        header = HEADER.pack(MAGIC, capacity, 0, len(text)) + text
        size = HEADER.size + DESCRIPTION + capacity * RECORD.size
        self._map = mapped_file.create(path, size, header)
        self._capacity = capacity
        self._written = 0

    def append(
        self,
        time: int,
        kind: Kind,
        level: int,
        subject: int = 0,
        values: tuple[int, ...] = (),
        label: bytes = b"",
    ) -> None:
        """Record one event; see :class:`Record`. ``label`` is cut where it is too long."""
        slot = self._written % self._capacity
        self._written = number = self._written + 1
        RECORD.pack_into(
            self._map,
            HEADER.size + DESCRIPTION + slot * RECORD.size,
            number,
            time,
            CODES[kind.name],
            level,
            subject,
            *values,
            *_NOTHING[len(values) :],
            label,
        )
        # After the record: a reader believes in those that are counted.
        _WRITTEN.pack_into(self._map, _WRITTEN_AT, number)

    def close(self) -> None:
        """Let go of the file, which stays for readers; its directory's owner removes it."""
        self._map.close()


def read(path: str | Path, after: int = 0) -> Contents:
    """What is left in a ring, without what the writer overwrote meanwhile.

    Args:
        path: of the file.
        after: only records with a larger number; no others are looked at.

    Raises:
        FileNotFoundError: there is no such file.
        NoRing: it is not a ring of this version.
    """
    with Path(path).open("rb") as file:
        try:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as error:  # an empty file
            raise NoRing("is empty") from error
    with mapped:
        head = mapped[: HEADER.size].ljust(HEADER.size, b"\0")
        magic, capacity, written, length = HEADER.unpack(head)
        start = HEADER.size + DESCRIPTION
        if magic != MAGIC or len(mapped) != start + capacity * RECORD.size:
            raise NoRing("is no timeline of this version")
        description = json.loads(mapped[HEADER.size : HEADER.size + length])
        # Record n is in slot n - 1, modulo the capacity: what is wanted wraps around once.
        number = min(written, max(after, written - capacity))
        slots = start + number % capacity * RECORD.size
        size = (written - number) * RECORD.size
        copy = mapped[slots : slots + size]
        copy += mapped[start : start + size - len(copy)]
        (later,) = _WRITTEN.unpack_from(mapped, _WRITTEN_AT)
    rows: Rows = np.frombuffer(copy, ROW)
    # Number ``later + 1`` may be in the middle of being written, over ``later + 1 - capacity``.
    numbers = rows["number"]
    rows = rows[(numbers >= max(1, later + 2 - capacity)) & (numbers <= written)]
    return Contents(description, written, rows[np.argsort(rows["number"])])


def records(rows: Rows) -> list[Record]:
    """The same rows, one by one."""
    found = []
    for number, time, code, level, subject, values, label in rows:
        kind = KINDS[code]
        stored = tuple(values.tolist()[: len(kind.values)])
        name = label.decode(errors="ignore")
        found.append(Record(int(number), int(time), kind, int(level), int(subject), stored, name))
    return found
