# SPDX-License-Identifier: Apache-2.0
"""A worker's side: copies blocks between its KV cache and its host slots."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import torch

from vllm_qllm.kv.copies import CopyReport
from vllm_qllm.kv.file_tier import FileTier
from vllm_qllm.kv.memory_tier import MemoryTier
from vllm_qllm.kv.pinned_tier import PinnedTier


class Tier(Protocol):
    """Where blocks are kept."""

    def write(self, blocks: Sequence[int], slots: Sequence[int]) -> list[int]:
        """Copy blocks into slots; returns the slots that failed."""

    def read(self, slots: Sequence[int], blocks: Sequence[int]) -> list[int]:
        """Copy slots into blocks; returns the blocks that failed."""

    def close(self) -> None:
        """Give everything back."""


def block_views(caches: Mapping[str, torch.Tensor], blocks: int) -> dict[str, torch.Tensor]:
    """Each layer's cache as [blocks, ...], without layers that share an earlier one's.

    A backend may divide a block of the scheduler into several of its own.
    """
    views: dict[str, torch.Tensor] = {}
    seen = set()
    for name, cache in caches.items():
        divided, rest = divmod(cache.shape[0], blocks)
        assert not rest, f"{tuple(cache.shape)} does not hold {blocks} blocks"
        if cache.data_ptr() not in seen:
            seen.add(cache.data_ptr())
            views[name] = cache.unflatten(0, (blocks, divided))
    return views


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
        views = block_views(caches, blocks)
        layers = list(views.values())
        users = Counter(cache.data_ptr() for cache in caches.values())
        self._places = {name: place for place, name in enumerate(views)}
        self._unshared = frozenset(n for n, cache in caches.items() if users[cache.data_ptr()] == 1)
        self._memory: MemoryTier | None = None
        self._tier: Tier
        self._on_gpu = layers[0].is_cuda
        if directory is not None:
            self._tier = FileTier(layers, slots, directory)
        elif self._on_gpu:
            self._tier = PinnedTier(layers, slots)
        else:
            self._tier = self._memory = MemoryTier(layers, slots)

    @property
    def layers(self) -> frozenset[str]:
        """Names of all caches, each that of its first layer."""
        return frozenset(self._places)

    @property
    def served(self) -> frozenset[str]:
        """Names of the layers that may ask :meth:`restore_layer` for their part.

        None of a file, whose blocks are checked whole, and none on a GPU: a layer that is replayed
        from a CUDA graph asks for nothing. None of those that share a cache, of which the first to
        read would have to ask.
        """
        return self._unshared if self._memory else frozenset()

    def offload(self, pairs: Sequence[tuple[int, int]], report: CopyReport) -> None:
        """Copy (block, slot) pairs to the host; one that fails cannot be read back."""
        if pairs:
            blocks, slots = zip(*pairs, strict=True)
            with self._timed() as took:
                report.errors += len(self._tier.write(blocks, slots))
            report.offloaded += len(pairs)
            report.offload_seconds += took[0]

    def restore(self, pairs: Sequence[tuple[int, int]], report: CopyReport) -> set[int]:
        """Copy (slot, block) pairs from the host; returns the blocks that failed."""
        if not pairs:
            return set()
        slots, blocks = zip(*pairs, strict=True)
        with self._timed() as took:
            failed = self._tier.read(slots, blocks)
        report.restored += len(pairs)
        report.restore_seconds += took[0]
        return set(failed)

    def restore_layer(
        self, name: str, pairs: Sequence[tuple[int, int]], report: CopyReport
    ) -> None:
        """Copy one layer's part of (slot, block) pairs, which the caller counts, from the host."""
        assert self._memory is not None
        slots, blocks = zip(*pairs, strict=True)
        with self._timed() as took:
            self._memory.read_layer(self._places[name], slots, blocks)
        report.restore_seconds += took[0]

    def close(self) -> None:
        """Give the host slots back."""
        self._tier.close()

    @contextmanager
    def _timed(self) -> Iterator[list[float]]:
        """Seconds that its body took, once it is done."""
        took: list[float] = []
        self._wait()  # for what is not part of it
        began = time.monotonic()
        yield took
        self._wait()
        took.append(time.monotonic() - began)

    def _wait(self) -> None:
        if self._on_gpu:
            torch.cuda.current_stream().synchronize()
