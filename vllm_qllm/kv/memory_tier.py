# SPDX-License-Identifier: Apache-2.0
"""Host slots in memory."""

from __future__ import annotations

from collections.abc import Sequence

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
        # Bytes: not every type of KV can be indexed.
        self._layers = [layer.view(torch.uint8) for layer in layers]
        pinned = layers[0].device.type == "cuda"
        self._slots = [
            torch.empty((slots, *layer.shape[1:]), dtype=torch.uint8, pin_memory=pinned)
            for layer in self._layers
        ]

    def write(self, blocks: Sequence[int], slots: Sequence[int]) -> list[int]:
        """Copy ``blocks`` into ``slots``; returns the slots that failed, which none does."""
        from_, to = torch.tensor(blocks), torch.tensor(slots)
        for layer, held in zip(self._layers, self._slots, strict=True):
            held[to] = layer.index_select(0, from_.to(layer.device)).to(held.device)
        return []

    def read(self, slots: Sequence[int], blocks: Sequence[int]) -> list[int]:
        """Copy ``slots`` into ``blocks``; returns the blocks that failed, which none does."""
        from_, to = torch.tensor(slots), torch.tensor(blocks)
        for layer, held in zip(self._layers, self._slots, strict=True):
            layer.index_copy_(0, to.to(layer.device), held.index_select(0, from_).to(layer.device))
        return []

    def close(self) -> None:
        """Give the memory back."""
        self._slots.clear()
