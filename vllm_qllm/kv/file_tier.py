# SPDX-License-Identifier: Apache-2.0
"""Host slots in a file that has no name."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from blake3 import blake3


def unnamed_file(directory: Path, size: int) -> int:
    """Descriptor of a file of ``size`` bytes whose space is there, and which nobody can open.

    The kernel takes the space back when the process ends, however it ends: there is nothing to
    clean up after a crash.

    Raises:
        OSError: the directory cannot hold it.
    """
    try:
        descriptor = os.open(directory, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
    except OSError:  # not every file system has unnamed files
        descriptor, name = tempfile.mkstemp(prefix="qllm-spill-", dir=directory)
        os.unlink(name)
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


class FileTier:
    """Holds blocks in a file, and the digest of each in memory.

    What cannot be written, or is not what was written when it is read, is reported as failed: its
    request is computed again.

    Args:
        layers: the KV cache of each layer, [blocks, ...].
        slots: how many blocks there is room for.
        directory: on a file system with room for all of them.

    Raises:
        OSError: the directory cannot hold them.
    """

    def __init__(self, layers: Sequence[torch.Tensor], slots: int, directory: Path) -> None:
        self._layers = layers
        self._sizes = [layer[0].numel() * layer.element_size() for layer in layers]
        self._size = sum(self._sizes)
        self._digests: dict[int, bytes] = {}
        self._file = unnamed_file(directory, slots * self._size)

    def write(self, blocks: Sequence[int], slots: Sequence[int]) -> list[int]:
        """Copy ``blocks`` into ``slots``; returns the slots that failed."""
        failed = []
        for block, slot in zip(blocks, slots, strict=True):
            self._digests.pop(slot, None)
            data = b"".join(_bytes(layer[block]) for layer in self._layers)
            try:
                written = os.pwrite(self._file, data, slot * self._size)
            except OSError:
                written = 0
            if written == self._size:
                self._digests[slot] = blake3(data).digest()
            else:
                failed.append(slot)
        return failed

    def read(self, slots: Sequence[int], blocks: Sequence[int]) -> list[int]:
        """Copy ``slots`` into ``blocks``; returns the blocks that failed."""
        failed = []
        for slot, block in zip(slots, blocks, strict=True):
            data = bytearray()
            with contextlib.suppress(OSError):
                data = bytearray(os.pread(self._file, self._size, slot * self._size))
            if blake3(data).digest() != self._digests.get(slot):
                failed.append(block)
                continue
            at = 0
            for layer, size in zip(self._layers, self._sizes, strict=True):
                part = torch.frombuffer(data, dtype=torch.uint8, offset=at, count=size)
                layer[block].copy_(part.view(layer.dtype).view(layer[block].shape))
                at += size
        return failed

    def close(self) -> None:
        """Give the space back."""
        os.close(self._file)


def _bytes(block: torch.Tensor) -> bytes:
    """The content of a block of one layer."""
    return block.contiguous().cpu().view(torch.uint8).numpy().tobytes()
