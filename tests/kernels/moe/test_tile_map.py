# SPDX-License-Identifier: Apache-2.0
"""What ``TileMap`` promises, for routings of every kind."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vllm_qllm.kernels.moe.tile_map import TileMap, make_tile_map, tile_limit
from vllm_qllm.kernels.moe.tile_shape import FEW, MANY, MANY_NARROW, SOME, shapes_for

Routing = tuple[torch.Tensor, int, torch.Tensor | None]


@st.composite
def routings(draw: st.DrawFn) -> Routing:
    """Ids, the number of local experts and a map; some ids name nobody, some experts nothing."""
    everywhere = draw(st.sampled_from([1, 8, 60, 256]))
    tokens = draw(st.sampled_from([0, 1, 2, 17, 300, 2000]))
    top_k = draw(st.integers(1, min(8, everywhere)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    # The most popular experts may get everything.
    popular = draw(st.integers(1, everywhere))
    ids = torch.randint(0, popular, (tokens, top_k), generator=generator)
    if draw(st.booleans()):
        ids[torch.rand(ids.shape, generator=generator) < 0.2] = -1
    if not draw(st.booleans()):
        return ids.int(), everywhere, None
    here = torch.rand(everywhere, generator=generator) < draw(st.sampled_from([0.0, 0.5, 1.0]))
    here[draw(st.integers(0, everywhere - 1))] = True
    expert_map = torch.where(here, here.cumsum(0) - 1, -1)
    return ids, int(here.sum()), expert_map.int()


def slow_local_ids(
    ids: torch.Tensor, experts: int, expert_map: torch.Tensor | None
) -> list[list[int]]:
    def local(expert: int) -> int:
        if expert_map is not None:
            expert = int(expert_map[expert]) if 0 <= expert < len(expert_map) else -1
        return expert if 0 <= expert < experts else -1

    return [[local(expert) for expert in row] for row in ids.tolist()]


def check(tile_map: TileMap, local_ids: list[list[int]], experts: int, rows: int) -> None:
    flat = [expert for row in local_ids for expert in row]
    assert tile_map.local_ids.flatten().tolist() == flat
    assert tile_map.counts.tolist() == [flat.count(expert) for expert in range(experts)]
    # A stable sort by local expert, those of none last.
    order = sorted(range(len(flat)), key=lambda pair: flat[pair] if flat[pair] >= 0 else experts)
    assert tile_map.pairs.tolist() == order
    tiles = int(tile_map.tiles)
    assert tiles <= tile_limit(len(flat), experts, rows) == tile_map.tile_size.numel()
    position = 0
    sizes, owners = tile_map.tile_size.tolist(), tile_map.tile_expert.tolist()
    for tile in range(tiles):
        assert tile_map.tile_first[tile] == position
        assert 1 <= sizes[tile] <= rows
        members = order[position : position + sizes[tile]]
        assert {flat[pair] for pair in members} == {owners[tile]}
        if sizes[tile] < rows and tile + 1 < tiles:
            assert owners[tile + 1] > owners[tile]
        position += sizes[tile]
    assert position == sum(expert >= 0 for expert in flat)
    assert not any(sizes[tiles:])
    assert all(0 <= owner < experts for owner in owners[tiles:])


@settings(deadline=None, max_examples=60)
@given(routings(), st.sampled_from([1, 16, 64, 128]))
@example((torch.full((40, 2), -1), 8, None), 16)  # nobody
@example((torch.tensor([[5, 8]]), 8, None), 16)  # an id that is out of range
@example((torch.tensor([[1, -7, 2]]), 1, torch.tensor([-1, 0])), 16)
def test_the_promises_hold(routing: Routing, rows: int) -> None:
    ids, experts, expert_map = routing
    tile_map = make_tile_map(ids, experts, rows, expert_map)
    check(tile_map, slow_local_ids(ids, experts, expert_map), experts, rows)
    assert all(tensor.dtype == torch.int32 for tensor in tile_map)


def test_16k_tokens_with_one_popular_expert() -> None:
    ids = torch.zeros(16384, 8, dtype=torch.int32)
    ids[::3, 1] = torch.arange(len(ids[::3])) % 256
    check(make_tile_map(ids, 256, 128), slow_local_ids(ids, 256, None), 256, 128)


@given(st.integers(0, 400), st.integers(1, 30), st.integers(1, 40))
def test_the_limit_is_reached_and_never_passed(pairs: int, experts: int, rows: int) -> None:
    # The worst routing: one pair for each expert but one, which has the others.
    spread = min(pairs, experts)
    worst = max(
        (lone + -(-(pairs - lone) // rows) for lone in range(spread) if pairs > lone), default=0
    )
    assert worst <= tile_limit(pairs, experts, rows)
    if spread <= 1 or (pairs - spread) % rows == 0:
        assert worst == tile_limit(pairs, experts, rows)


def test_sizes_never_need_a_value_from_the_device() -> None:
    # Tensors on "meta" have no values, so an operation that asked for one would raise.
    ids = torch.empty(100, 8, dtype=torch.int32, device="meta")
    expert_map = torch.empty(64, dtype=torch.int32, device="meta")
    tile_map = make_tile_map(ids, 32, 16, expert_map)
    assert tile_map.pairs.shape == (800,)
    assert tile_map.tile_expert.shape == (tile_limit(800, 32, 16),)


@pytest.mark.parametrize(
    ("tokens", "top_k", "experts", "major", "shapes"),
    [
        (1, 2, 8, 9, FEW),
        (64, 2, 8, 9, FEW),
        (65, 2, 8, 9, SOME),
        (384, 2, 8, 8, SOME),
        (385, 2, 8, 8, MANY_NARROW),
        (385, 2, 8, 9, MANY),
        (16384, 8, 256, 10, MANY),
        (16384, 8, 256, 12, MANY_NARROW),
    ],
)
def test_shapes_follow_from_the_size(
    tokens: int, top_k: int, experts: int, major: int, shapes: object
) -> None:
    chosen = shapes_for(tokens, top_k, experts, major)
    assert chosen is shapes
    assert chosen.gate_up.rows == chosen.down.rows
