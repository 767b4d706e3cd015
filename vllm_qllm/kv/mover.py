# SPDX-License-Identifier: Apache-2.0
"""A worker's side: copies blocks between its KV cache and its host slots."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch

from vllm_qllm.kv.copies import CopyReport
from vllm_qllm.kv.file_tier import FileTier
from vllm_qllm.kv.memory_tier import MemoryTier


class Tier(Protocol):
    """Where blocks are kept."""

    def write(self, blocks: Sequence[int], slots: Sequence[int]) -> list[int]:
        """Copy blocks into slots; returns the slots that failed."""

    def read(self, slots: Sequence[int], blocks: Sequence[int]) -> list[int]:
        """Copy slots into blocks; returns the blocks that failed."""

    def close(self) -> None:
        """Give everything back."""


def block_views(caches: Iterable[torch.Tensor], blocks: int) -> list[torch.Tensor]:
    """Each layer's cache as [blocks, ...], without layers that share another's.

    A backend may divide a block of the scheduler into several of its own.
    """
    views: dict[int, torch.Tensor] = {}
    for cache in caches:
        divided, rest = divmod(cache.shape[0], blocks)
        assert not rest, f"{tuple(cache.shape)} does not hold {blocks} blocks"
        views.setdefault(cache.data_ptr(), cache.unflatten(0, (blocks, divided)))
    return list(views.values())


class Mover:
    """Does what :class:`~vllm_qllm.kv.copies.Copies` asks for, and adds what it took to a report.

    Args:
        caches: the KV cache of each layer, by name.
        blocks: of the block pool.
        slots: blocks that there is room for on the host.
        directory: for a file; None for memory.
    """

    def __init__(
        self,
        caches: Mapping[str, torch.Tensor],
        blocks: int,
        slots: int,
        directory: Path | None = None,
    ) -> None:
        layers = block_views(caches.values(), blocks)
        self._tier: Tier
        if directory is None:
            self._tier = MemoryTier(layers, slots)
        else:
            self._tier = FileTier(layers, slots, directory)

    def out(self, pairs: Sequence[tuple[int, int]], report: CopyReport) -> None:
        """Copy (block, slot) pairs to the host; one that fails cannot be read back."""
        if pairs:
            began = time.monotonic()
            blocks, slots = zip(*pairs, strict=True)
            report.errors += len(self._tier.write(blocks, slots))
            report.out += len(pairs)
            report.out_seconds += time.monotonic() - began

    def back(self, pairs: Sequence[tuple[int, int]], report: CopyReport) -> set[int]:
        """Copy (slot, block) pairs from the host; returns the blocks that failed."""
        if not pairs:
            return set()
        began = time.monotonic()
        slots, blocks = zip(*pairs, strict=True)
        failed = self._tier.read(slots, blocks)
        report.back += len(pairs)
        report.back_seconds += time.monotonic() - began
        return set(failed)

    def close(self) -> None:
        """Give the host slots back."""
        self._tier.close()
