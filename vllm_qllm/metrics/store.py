# SPDX-License-Identifier: Apache-2.0
"""The numbers: float64 slots in a mapped file, with one writer and any number of readers."""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path

from vllm_qllm import mapped_file
from vllm_qllm.metrics.layout import Layout

MAGIC = b"qllm\0\0\0\1"
# Magic, digest of the layout, number of slots. A multiple of 8, so that every slot is aligned.
HEADER = struct.Struct("8s32sQ")


class LayoutMismatch(RuntimeError):
    """The file was written for other classes or by another version."""


def _header(layout: Layout) -> bytes:
    return HEADER.pack(MAGIC, layout.digest, layout.size)


class Store:
    """The writer's side.

    An aligned 8-byte store is atomic on every platform vLLM runs on, so nothing is locked: a
    reader may see one of two related numbers a moment before the other, never half a number.

    Args:
        layout: what stands where.
        path: the file, which must not be another writer's; None keeps the numbers in memory.

    Raises:
        OSError: the file cannot be made, or there is no room for all of it.

    Attributes:
        slots: the numbers, to be read and assigned by index.
    """

    def __init__(self, layout: Layout, path: str | Path | None = None) -> None:
        size = HEADER.size + 8 * layout.size
        self._map: mmap.mmap | bytearray
        if path is None:
            self._map = bytearray(size)
        else:
            self._map = mapped_file.create(path, size, _header(layout))
        self.slots = memoryview(self._map)[HEADER.size :].cast("d")

    def close(self) -> None:
        """Let go of the file, which stays for readers; its directory's owner removes it."""
        self.slots.release()
        if isinstance(self._map, mmap.mmap):
            self._map.close()


def read(layout: Layout, path: str | Path) -> list[float] | None:
    """All slots as they are now, or None when there is no such file (yet).

    Raises:
        LayoutMismatch: the file does not have this layout.
    """
    size = HEADER.size + 8 * layout.size
    try:
        with Path(path).open("rb") as file:
            if file.read(HEADER.size) != _header(layout) or file.seek(0, os.SEEK_END) != size:
                raise LayoutMismatch(
                    f"the metrics are not those of classes {', '.join(layout.classes)}; "
                    "were they written by another version or with another configuration?"
                )
            # Mapped, not read: a slot is then loaded in one piece, as it was stored.
            mapped = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        return None
    with mapped, memoryview(mapped) as whole, whole[HEADER.size :] as body, body.cast("d") as slots:
        return [float(number) for number in slots]
