# SPDX-License-Identifier: Apache-2.0
"""Host slots in pinned memory, for KV on a GPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from vllm.v1.simple_kv_offload.cuda_mem_ops import pin_tensor

from vllm_qllm.kv.memory_tier import as_bytes, runs

# GPU memory that a copy may take beside the KV cache, which leaves little: see ``_parts``.
STAGING_BYTES = 32 << 20


class PinnedTier:
    """Holds blocks in pinned host memory, all of which is there from the start.

    Blocks are gathered on the GPU and go to the host in few large copies, for slots are handed out
    in order; and the other way round. Everything is done in the order of the stream that computes,
    and the host reads no slot: it has to wait for none of it.

    Args:
        layers: the KV cache of each layer, [blocks, ...].
        slots: how many blocks there is room for.

    Raises:
        RuntimeError: the memory cannot be promised, or not be pinned.
    """

    def __init__(self, layers: Sequence[torch.Tensor], slots: int) -> None:
        self._layers = [as_bytes(layer) for layer in layers]
        self._slots = [
            torch.empty((slots, *layer.shape[1:]), dtype=torch.uint8) for layer in self._layers
        ]
        for held in self._slots:
            pin_tensor(held)

    def write(self, blocks: Sequence[int], slots: Sequence[int]) -> list[int]:
        """Copy ``blocks`` into ``slots``; returns the slots that failed, which none does."""
        for layer, held in zip(self._layers, self._slots, strict=True):
            for part in self._parts(layer, slots):
                gathered = layer.index_select(0, self._places(layer, blocks, part))
                for at, slot, count in self._runs(slots, part):
                    held[slot : slot + count].copy_(gathered[at : at + count], non_blocking=True)
        return []

    def read(self, slots: Sequence[int], blocks: Sequence[int]) -> list[int]:
        """Copy ``slots`` into ``blocks``; returns the blocks that failed, which none does."""
        for layer, held in zip(self._layers, self._slots, strict=True):
            for part in self._parts(layer, slots):
                gathered = layer.new_empty((len(part), *layer.shape[1:]))
                for at, slot, count in self._runs(slots, part):
                    gathered[at : at + count].copy_(held[slot : slot + count], non_blocking=True)
                layer.index_copy_(0, self._places(layer, blocks, part), gathered)
        return []

    def close(self) -> None:
        """Give the memory back."""
        while self._slots:
            torch.cuda.cudart().cudaHostUnregister(self._slots.pop().data_ptr())

    def _parts(self, layer: torch.Tensor, slots: Sequence[int]) -> Iterator[list[int]]:
        """Which of ``slots`` to copy together, in their order, within STAGING_BYTES."""
        order = sorted(range(len(slots)), key=slots.__getitem__)
        size = max(1, STAGING_BYTES // layer[0].numel())
        for first in range(0, len(order), size):
            yield order[first : first + size]

    @staticmethod
    def _runs(slots: Sequence[int], part: list[int]) -> Iterator[tuple[int, int, int]]:
        return runs(range(len(part)), [slots[i] for i in part])

    @staticmethod
    def _places(layer: torch.Tensor, blocks: Sequence[int], part: list[int]) -> torch.Tensor:
        return torch.tensor([blocks[i] for i in part], device=layer.device)
