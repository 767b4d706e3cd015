# SPDX-License-Identifier: Apache-2.0
"""Host slots in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from vllm.v1.simple_kv_offload.cuda_mem_ops import pin_tensor


class MemoryTier:
    """Holds blocks in memory of its own.

    The kernel provides it as slots are first used; on a GPU it is pinned, and there from the start.

    Args:
        layers: the KV cache of each layer, [blocks, ...].
        slots: how many blocks there is room for.

    Raises:
        RuntimeError: the memory cannot even be promised, or not be pinned.
    """

    def __init__(self, layers: Sequence[torch.Tensor], slots: int) -> None:
        # Bytes: not every type of KV can be copied.
        self._layers = [layer.view(torch.uint8) for layer in layers]
        self._slots = [
            torch.empty((slots, *layer.shape[1:]), dtype=torch.uint8) for layer in self._layers
        ]
        self._pinned = layers[0].is_cuda
        if self._pinned:
            for held in self._slots:
                pin_tensor(held)

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
        while self._slots:
            held = self._slots.pop()
            if self._pinned:
                torch.cuda.cudart().cudaHostUnregister(held.data_ptr())


def runs(from_: Sequence[int], to: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """(first of ``from_``, first of ``to``, how many) of neighbours that stay neighbours.

    Blocks and slots are often handed out in order, and one large copy is faster than many.
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
    # On a GPU these are done in the order of the stream that computes; nobody reads slots before.
    for at, there, count in runs(from_, to):
        target[there : there + count].copy_(source[at : at + count], non_blocking=True)
