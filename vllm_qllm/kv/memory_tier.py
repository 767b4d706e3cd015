# SPDX-License-Identifier: Apache-2.0
"""Host slots in memory, for KV that is in memory, too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch


class MemoryTier:
    """Holds blocks in memory of its own, which the kernel provides as slots are first used.

    Args:
        layers: the KV cache of each layer, [blocks, ...].
        slots: how many blocks there is room for.

    Raises:
        RuntimeError: the memory cannot even be promised.
    """

    def __init__(self, layers: Sequence[torch.Tensor], slots: int) -> None:
        self._layers = [as_bytes(layer) for layer in layers]
        self._slots = [
            torch.empty((slots, *layer.shape[1:]), dtype=torch.uint8) for layer in self._layers
        ]

    def write(self, blocks: Sequence[int], slots: Sequence[int]) -> list[int]:
        """Copy ``blocks`` into ``slots``; returns the slots that failed, which none does."""
        for layer, held in zip(self._layers, self._slots, strict=True):
            _copy(layer, blocks, held, slots)
        return []

    def read(self, slots: Sequence[int], blocks: Sequence[int]) -> list[int]:
        """Copy ``slots`` into ``blocks``; returns the blocks that failed, which none does."""
        for layer in range(len(self._layers)):
            self.read_layer(layer, slots, blocks)
        return []

    def read_layer(self, layer: int, slots: Sequence[int], blocks: Sequence[int]) -> None:
        """The same for one layer, by its place among ``layers``."""
        _copy(self._slots[layer], slots, self._layers[layer], blocks)

    def close(self) -> None:
        """Give the memory back."""
        self._slots.clear()


def as_bytes(layer: torch.Tensor) -> torch.Tensor:
    """The KV cache of a layer, [blocks, ...] of any type, as uint8 in the order it lies in memory.

    Backends differ in which dimension is the outer one; copies are fastest in memory's order.
    """
    inner = sorted(range(1, layer.dim()), key=layer.stride, reverse=True)
    return layer.permute(0, *inner).view(torch.uint8)


def runs(from_: Sequence[int], to: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """(first of ``from_``, first of ``to``, how many) of neighbours that stay neighbours.

    One large copy is faster than several.
    """
    first = 0
    for i in range(1, len(from_) + 1):
        count = i - first
        if i == len(from_) or (from_[i], to[i]) != (from_[first] + count, to[first] + count):
            yield from_[first], to[first], count
            first = i


def _copy(
    source: torch.Tensor, from_: Sequence[int], target: torch.Tensor, to: Sequence[int]
) -> None:
    for at, there, count in runs(from_, to):
        target[there : there + count] = source[at : at + count]
