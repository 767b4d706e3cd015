# SPDX-License-Identifier: Apache-2.0
"""GPU kernels of an MoE layer that can be stopped between tiles and started again.

Each of the four phases (gate-up with the activation, down, its tail, weighted sum) is a queue of
tiles and a counter: the next tile. Programs are persistent: each claims a tile by an atomic add,
computes it and claims the next one. A tile is computed by one program alone, in an order that
depends on its shape only, and writes elements that no other tile writes. So bits do not depend on
who computes it or when, and starting again is launching again.

Why no tile is lost or computed twice:
    - The stop flag is read first, and a tile is claimed only if it was not raised. Raised between
      the two, it stops the program one tile later. A claimed tile is always computed: when a
      launch has ended, the tiles below the counter are complete and those above are untouched.
    - A phase begins when the counter of the one before has reached its end. The counter was
      written by an earlier launch on the same stream, so all programs see the same value; the flag
      is not asked. A phase that may not begin claims nothing.
    - Every program claims once beyond the end, so counters end above the number of tiles.

The last tiles of down, its tail, and the sum look at no flag: once the phases that do have been
seen complete, the host has that long to enqueue what comes next, and the device does not fall idle.

Words: H hidden size, I intermediate size (of this rank), pair and row tile as in ``tile_map``.
ROWS, COLUMNS, DEPTH and GROUP are BLOCK_M, BLOCK_N, BLOCK_K and GROUP_M elsewhere.
All matrices are row-major and contiguous. Sums are float32.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _claim(counter, end, flag, number, WATCH: tl.constexpr, THREADS: tl.constexpr):
    """The next tile; ``end`` or more if there is none, or if the flag names this launch."""
    tile = end
    if WATCH:
        # Each thread loads a scalar for itself, and the host may write between two loads: threads
        # of one program would part ways and hang. So every thread loads, and a reduction through
        # shared memory gives all of them one answer.
        named = tl.load(flag + tl.zeros([THREADS], tl.int32), volatile=True)
        stop = tl.max((named == number).to(tl.int32), axis=0)
        if stop == 0:
            tile = tl.atomic_add(counter, 1, sem="relaxed")
    else:
        tile = tl.atomic_add(counter, 1, sem="relaxed")
    return tile


@triton.jit
def _coordinates(tile, row_tiles, columns, GROUP: tl.constexpr):
    """Row tile and column of a tile: GROUP row tiles take turns, so that they share weights."""
    width = GROUP * columns
    first = tile // width * GROUP
    height = tl.minimum(row_tiles - first, GROUP)
    return first + tile % width % height, tile % width // height


@triton.jit
def _activate(gate, ACTIVATION: tl.constexpr):
    if ACTIVATION == "silu":
        result = gate * tl.sigmoid(gate)
    elif ACTIVATION == "gelu":
        result = 0.5 * gate * (1.0 + tl.erf(gate * 0.7071067811865476))
    else:
        tl.static_assert(ACTIVATION == "gelu_tanh")
        # tanh(x) = 2 sigmoid(2 x) - 1
        inner = 0.7978845608028654 * (gate + 0.044715 * gate * gate * gate)
        result = gate * tl.sigmoid(2.0 * inner)
    return result


@triton.jit(do_not_specialize=["number"])
def gate_up(
    hidden,  # [tokens, H]
    w13,  # [experts, 2 I, H]: gate above up
    bias13,  # [experts, 2 I], unused without HAS_BIAS
    inter,  # out: [pairs, I], rows in sorted order
    pairs,
    tile_expert,
    tile_first,
    tile_size,
    tiles,
    counters,  # [4], one for each phase
    flag,  # [1] int64: the launch that is asked to stop
    number,  # of this launch
    H,
    I,  # noqa: E741
    TOP_K: tl.constexpr,
    ACTIVATION: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    EVEN: tl.constexpr,  # whether DEPTH divides H
    WATCH: tl.constexpr,  # whether to look at the flag
    THREADS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    GROUP: tl.constexpr,
):
    """Phase 0: ``inter = activation(hidden @ gate.T) * (hidden @ up.T)``."""
    columns = tl.cdiv(I, COLUMNS)
    row_tiles = tl.load(tiles)
    end = row_tiles * columns
    tile = _claim(counters, end, flag, number, WATCH, THREADS)
    while tile < end:
        row_tile, column = _coordinates(tile, row_tiles, columns, GROUP)
        first = tl.load(tile_first + row_tile)
        size = tl.load(tile_size + row_tile)
        expert = tl.load(tile_expert + row_tile).to(tl.int64)

        # Rows and columns beyond the edge repeat the last one, and are not stored.
        row = tl.arange(0, ROWS)
        out_column = column * COLUMNS + tl.arange(0, COLUMNS)
        depth = tl.arange(0, DEPTH)
        token = tl.load(pairs + first + tl.minimum(row, size - 1)) // TOP_K
        weight = tl.minimum(out_column, I - 1)
        # Only scalars are 64 bits wide: offsets within one expert fit into 32.
        a = token[:, None] * H + depth[None, :]
        w = weight[:, None] * H + depth[None, :]
        w_gate = w13 + expert * 2 * I * H
        w_up = w_gate + tl.cast(I, tl.int64) * H

        gate = tl.zeros([ROWS, COLUMNS], tl.float32)
        up = tl.zeros([ROWS, COLUMNS], tl.float32)
        if HAS_BIAS:  # first, not last: registers are scarcest at the end
            b = bias13 + expert * 2 * I + weight
            gate += tl.load(b).to(tl.float32)[None, :]
            up += tl.load(b + I).to(tl.float32)[None, :]
        for k in range(0, H, DEPTH):
            if EVEN:
                x = tl.load(hidden + k + a)
                g = tl.load(w_gate + k + w)
                u = tl.load(w_up + k + w)
            else:
                inside = depth[None, :] < H - k
                x = tl.load(hidden + k + a, mask=inside, other=0.0)
                g = tl.load(w_gate + k + w, mask=inside, other=0.0)
                u = tl.load(w_up + k + w, mask=inside, other=0.0)
            gate = tl.dot(x, tl.trans(g), gate)
            up = tl.dot(x, tl.trans(u), up)

        result = (_activate(gate, ACTIVATION) * up).to(inter.dtype.element_ty)
        out = inter + first.to(tl.int64) * I + row[:, None] * I + out_column[None, :]
        tl.store(out, result, mask=(row < size)[:, None] & (out_column < I)[None, :])
        tile = _claim(counters, end, flag, number, WATCH, THREADS)


@triton.jit(do_not_specialize=["number", "tail"])
def down(
    inter,  # [pairs, I], rows in sorted order
    w2,  # [experts, H, I]
    bias2,  # [experts, H], unused without HAS_BIAS
    parts,  # out: [pairs, H], rows in the order of pairs
    pairs,
    tile_expert,
    tile_first,
    tile_size,
    tiles,
    counters,
    flag,
    number,
    tail,  # tiles at the end that are a phase of their own
    H,
    I,  # noqa: E741
    TAIL: tl.constexpr,  # whether this is that phase
    HAS_BIAS: tl.constexpr,
    EVEN: tl.constexpr,  # whether DEPTH divides I
    WATCH: tl.constexpr,
    THREADS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    GROUP: tl.constexpr,
    BEFORE: tl.constexpr,  # COLUMNS of gate_up
):
    """Phases 1 and 2: ``parts = inter @ w2.T``."""
    columns = tl.cdiv(H, COLUMNS)
    row_tiles = tl.load(tiles)
    whole = row_tiles * columns
    split = tl.maximum(whole - tail, 0)
    ready = tl.load(counters) >= row_tiles * tl.cdiv(I, BEFORE)
    if TAIL:
        ready = ready & (tl.load(counters + 1) >= split)
        begin, end, counter = split, whole - split, counters + 2
    else:
        begin, end, counter = 0, split, counters + 1
    if ready:
        tile = _claim(counter, end, flag, number, WATCH, THREADS)
        while tile < end:
            row_tile, column = _coordinates(begin + tile, row_tiles, columns, GROUP)
            first = tl.load(tile_first + row_tile)
            size = tl.load(tile_size + row_tile)
            expert = tl.load(tile_expert + row_tile).to(tl.int64)

            row = tl.arange(0, ROWS)
            out_column = column * COLUMNS + tl.arange(0, COLUMNS)
            depth = tl.arange(0, DEPTH)
            in_row = tl.minimum(row, size - 1)
            weight = tl.minimum(out_column, H - 1)
            a = in_row[:, None] * I + depth[None, :]
            w = weight[:, None] * I + depth[None, :]
            rows = inter + first.to(tl.int64) * I
            weights = w2 + expert * H * I

            result = tl.zeros([ROWS, COLUMNS], tl.float32)
            if HAS_BIAS:
                result += tl.load(bias2 + expert * H + weight).to(tl.float32)[None, :]
            for k in range(0, I, DEPTH):
                if EVEN:
                    x = tl.load(rows + k + a)
                    y = tl.load(weights + k + w)
                else:
                    inside = depth[None, :] < I - k
                    x = tl.load(rows + k + a, mask=inside, other=0.0)
                    y = tl.load(weights + k + w, mask=inside, other=0.0)
                result = tl.dot(x, tl.trans(y), result)

            pair = tl.load(pairs + first + in_row).to(tl.int64)
            out = parts + pair[:, None] * H + out_column[None, :]
            mask = (row < size)[:, None] & (out_column < H)[None, :]
            tl.store(out, result.to(parts.dtype.element_ty), mask=mask)
            tile = _claim(counter, end, flag, number, WATCH, THREADS)


@triton.jit(do_not_specialize=["tail", "tokens"])
def weighted_sum(
    parts,  # [tokens, TOP_K, H]
    weights,  # [tokens, TOP_K], unused without HAS_WEIGHTS
    local_ids,  # [tokens, TOP_K]: negative where a part was not computed here
    output,  # out: [tokens, H]
    tiles,
    counters,
    tail,
    tokens,
    H,
    TOP_K: tl.constexpr,
    HAS_WEIGHTS: tl.constexpr,
    THREADS: tl.constexpr,
    TOKENS: tl.constexpr,
    COLUMNS: tl.constexpr,
    BEFORE: tl.constexpr,  # COLUMNS of down
):
    """Phase 3: ``output = sum over a token's local experts of weight * part``."""
    end = tl.cdiv(tokens, TOKENS)
    whole = tl.load(tiles) * tl.cdiv(H, BEFORE)
    split = tl.maximum(whole - tail, 0)
    # Without a tail nobody claims in its phase, and both of its numbers are 0.
    complete = tl.load(counters + 2) >= whole - split
    if complete & (tl.load(counters + 1) >= split):
        tile = _claim(counters + 3, end, counters, 0, False, THREADS)
        while tile < end:
            token = tile * TOKENS + tl.arange(0, TOKENS)
            exists = token < tokens
            for first in range(0, H, COLUMNS):
                column = first + tl.arange(0, COLUMNS)
                inside = exists[:, None] & (column < H)[None, :]
                result = tl.zeros([TOKENS, COLUMNS], tl.float32)
                for choice in tl.static_range(TOP_K):
                    pair = token * TOP_K + choice
                    local = tl.load(local_ids + pair, mask=exists, other=-1) >= 0
                    part = parts + pair.to(tl.int64)[:, None] * H + column[None, :]
                    value = tl.load(part, mask=inside & local[:, None], other=0.0)
                    value = value.to(tl.float32)
                    if HAS_WEIGHTS:
                        weight = tl.load(weights + pair, mask=exists, other=0.0)
                        value *= weight.to(tl.float32)[:, None]
                    result += value
                out = output + token.to(tl.int64)[:, None] * H + column[None, :]
                tl.store(out, result.to(output.dtype.element_ty), mask=inside)
            tile = _claim(counters + 3, end, counters, 0, False, THREADS)
