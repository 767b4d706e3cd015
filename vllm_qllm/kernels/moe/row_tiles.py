# SPDX-License-Identifier: Apache-2.0
"""Stock experts in tiles of rows, with a yield point before each.

Serves every kernel that has no yield points of its own. Each row of a batch is computed alone, and
tiles depend on the number of rows only, so that a suspension changes nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

# A tile reads the weights of all experts once more: fewer rows cost more and wait less.
ROWS = 1024


def in_row_tiles(
    apply: Callable[..., None], yield_point: Callable[[], None]
) -> Callable[..., None]:
    """``FusedMoEExpertsModular.apply`` over at most :data:`ROWS` rows at a time.

    Args:
        apply: of an experts object whose inputs are not quantised.
        yield_point: called before each tile.
    """

    @functools.wraps(apply)
    def tiled(
        output: torch.Tensor,
        hidden_states: torch.Tensor,
        w1: torch.Tensor,
        w2: torch.Tensor,
        topk_weights: torch.Tensor,
        topk_ids: torch.Tensor,
        **others: Any,
    ) -> None:
        count = hidden_states.shape[0]
        tiles = max(1, -(-count // ROWS))
        rows = -(-count // tiles)  # of equal size: a tile of few rows costs almost as much
        for first in range(0, max(count, 1), max(rows, 1)):
            yield_point()
            tile = slice(first, first + rows)
            apply(
                output=output[tile],
                hidden_states=hidden_states[tile],
                w1=w1,
                w2=w2,
                topk_weights=topk_weights[tile],
                topk_ids=topk_ids[tile],
                **others,
            )

    return tiled
