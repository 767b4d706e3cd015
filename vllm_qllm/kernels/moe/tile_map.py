# SPDX-License-Identifier: Apache-2.0
"""Which rows each tile of an MoE layer's queue computes: token-expert pairs, sorted by expert.

Words:
    pair: one token at one of its experts; pair p is token ``p // top_k``, choice ``p % top_k``.
    local expert: an expert whose weights are here. Pairs of other experts belong to no tile.
    row tile: at most ``rows`` pairs of one expert, next to each other in ``pairs``.

In vLLM's words ``pairs`` is sorted_token_ids without padding, and ``tile_expert`` is expert_ids.

All sizes of tensors follow from the shapes alone, so that nothing here waits for a GPU.
"""

from __future__ import annotations

from typing import NamedTuple

import torch


class TileMap(NamedTuple):
    """Where the tiles are; every tensor is int32 and on the device of ``topk_ids``.

    What holds, with ``size = tile_size[:tiles]`` and so on:
        - ``pairs`` is a permutation of all pairs; those of expert e come before those of e + 1,
          those of no local expert last, and equals keep their order;
        - the tiles cover the pairs of local experts in the order of ``pairs``, each pair once;
        - no tile is empty, none holds more than ``rows`` pairs or pairs of two experts, and only
          the last tile of an expert holds fewer than ``rows``;
        - beyond ``tiles`` every ``tile_size`` is 0, and ``tile_expert`` still names an expert.

    Attributes:
        pairs: [tokens * top_k] pair at each sorted position.
        counts: [experts] pairs of each local expert.
        tile_expert: [limit] the local expert of each tile.
        tile_first: [limit] sorted position of its first pair.
        tile_size: [limit] number of its pairs.
        tiles: [1] number of tiles, known to the device alone.
        local_ids: [tokens, top_k] local expert of each pair, or -1.
    """

    pairs: torch.Tensor
    counts: torch.Tensor
    tile_expert: torch.Tensor
    tile_first: torch.Tensor
    tile_size: torch.Tensor
    tiles: torch.Tensor
    local_ids: torch.Tensor


def tile_limit(pairs: int, experts: int, rows: int) -> int:
    """The most tiles that ``pairs`` pairs can need, however they are routed."""
    filled = min(pairs, experts)  # experts that have a pair, each with one tile that is not full
    return min(pairs, (pairs + filled * (rows - 1)) // rows)


def make_tile_map(
    topk_ids: torch.Tensor, experts: int, rows: int, expert_map: torch.Tensor | None = None
) -> TileMap:
    """Sort the pairs of a step into row tiles.

    Args:
        topk_ids: [tokens, top_k] integers, the experts of each token; those that are negative or
            too large, before or after the map, name no expert.
        experts: number of local experts, at least 1.
        rows: most pairs in a tile, at least 1.
        expert_map: [all experts] integers, the local expert of each expert or -1; None if all
            experts are local.
    """
    device = topk_ids.device
    ids = topk_ids.long()
    if expert_map is not None:
        known = (ids >= 0) & (ids < len(expert_map))
        ids = torch.where(known, expert_map[ids.clamp(0, len(expert_map) - 1)].long(), -1)
    local_ids = torch.where((ids >= 0) & (ids < experts), ids, -1)
    # Pairs of no local expert sort last. A stable sort, not a count by atomics: the same step
    # must get the same tiles each time.
    keys = torch.where(local_ids >= 0, local_ids, experts).flatten()
    keys, pairs = torch.sort(keys, stable=True)
    starts = torch.searchsorted(keys, torch.arange(experts + 1, device=device))
    counts = starts.diff()
    tiles = (counts + (rows - 1)) // rows
    ends = tiles.cumsum(0)
    tile = torch.arange(tile_limit(keys.numel(), experts, rows), device=device)
    expert = torch.searchsorted(ends, tile, right=True).clamp(max=experts - 1)
    # Beyond the last tile this lies at or after the end of the last expert: size 0.
    first = starts[expert] + (tile - (ends - tiles)[expert]) * rows
    size = (starts[expert + 1] - first).clamp(0, rows)
    return TileMap(
        pairs=pairs.int(),
        counts=counts.int(),
        tile_expert=expert.int(),
        tile_first=first.int(),
        tile_size=size.int(),
        tiles=ends[-1:].int(),
        local_ids=local_ids.int(),
    )
