# SPDX-License-Identifier: Apache-2.0
"""Shapes of the GPU kernel's tiles: a function of the step's size and of the model, nothing else.

They decide in which order numbers are added up. If they followed from what else is running, a
suspended step could get other tokens than one that was not.
"""

from __future__ import annotations

from typing import NamedTuple


class TileShape(NamedTuple):
    """How a GEMM is cut; ``depth`` is the part of the sum that is loaded at once."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int


class Shapes(NamedTuple):
    """Shapes of the three phases.

    Attributes:
        gate_up, down: of the two GEMMs; both have the same ``rows``, as they share a tile map.
        tokens: that one item of the reduction sums up.
    """

    gate_up: TileShape
    down: TileShape
    tokens: int


FEW = Shapes(TileShape(16, 64, 128, 4, 3), TileShape(16, 64, 128, 4, 4), 1)
SOME = Shapes(TileShape(64, 64, 64, 4, 3), TileShape(64, 128, 64, 4, 3), 4)
MANY = Shapes(TileShape(128, 128, 64, 8, 3), TileShape(128, 256, 64, 8, 3), 16)
# Before Hopper, matrix instructions read their operands from registers too: two accumulators of
# 128 columns would spill. These shapes also fit into 99 KiB of shared memory.
MANY_NARROW = Shapes(TileShape(128, 64, 64, 8, 3), MANY.down, MANY.tokens)

# Compute capabilities, by major number, that have room for MANY.
WIDE = (9, 10)


def shapes_for(tokens: int, top_k: int, experts: int, major: int) -> Shapes:
    """The shapes for a step.

    Args:
        tokens: in the step.
        top_k: experts of each token.
        experts: local ones.
        major: of the device's compute capability.
    """
    average = tokens * top_k / experts
    if average <= 16:
        return FEW
    if average <= 96:
        return SOME
    return MANY if major in WIDE else MANY_NARROW
