# SPDX-License-Identifier: Apache-2.0
"""Blocks come back as they went, or are said to have failed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from vllm_qllm.kv import pinned_tier
from vllm_qllm.kv.copies import CopyReport
from vllm_qllm.kv.file_tier import FileTier
from vllm_qllm.kv.memory_tier import MemoryTier, as_bytes, runs
from vllm_qllm.kv.mover import Mover, Tier, block_views

BLOCKS, SLOTS = 6, 4
Make = Callable[[list[torch.Tensor]], Tier]


@pytest.fixture(params=["memory", "pinned", "file"])
def make(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    match request.param:
        case "memory":
            return lambda layers: MemoryTier(layers, SLOTS)
        case "pinned":  # all of it but the pinning, which needs a GPU; two blocks at a time
            library = SimpleNamespace(cudaHostUnregister=lambda address: 0)
            monkeypatch.setattr(pinned_tier, "pin_tensor", lambda tensor: None)
            monkeypatch.setattr(torch.cuda, "cudart", lambda: library)
            monkeypatch.setattr(pinned_tier, "STAGING_BYTES", 2 * 2 * 16 * 8 * 2)
            return lambda layers: pinned_tier.PinnedTier(layers, SLOTS)
    return lambda layers: FileTier(layers, SLOTS, tmp_path)


def layers(dtype: torch.dtype) -> list[torch.Tensor]:
    """Three layers that lie block by block in one allocation, as vLLM may lay them out."""
    pool = torch.randn(BLOCKS, 3, 2, 16, 8).to(dtype)
    return [pool[:, layer] for layer in range(3)]


@pytest.mark.parametrize("heads_first", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn])
def test_blocks_come_back_elsewhere(make: Make, dtype: torch.dtype, heads_first: bool) -> None:
    cache = layers(dtype)
    if heads_first:  # in shape, not in memory
        cache = [layer.transpose(1, 2) for layer in cache]
    was = [layer.clone() for layer in cache]
    tier = make(cache)
    assert tier.write([1, 4, 5], [3, 0, 2]) == []
    for layer in cache:
        layer.view(torch.uint8).fill_(77)
    assert tier.read([0, 3], [2, 0]) == []
    for layer, old in zip(cache, was, strict=True):
        assert torch.equal(layer[2].view(torch.uint8), old[4].view(torch.uint8))
        assert torch.equal(layer[0].view(torch.uint8), old[1].view(torch.uint8))
        untouched = layer[[1, 3, 4, 5]].view(torch.uint8)
        assert torch.all(untouched == 77)
    tier.close()


def test_bytes_lie_in_the_order_of_memory() -> None:
    layer = torch.zeros(BLOCKS, 3, 16, 2, 8, dtype=torch.bfloat16)[:, 1].transpose(1, 2)
    assert layer.shape == (BLOCKS, 2, 16, 8) and not layer[0].is_contiguous()
    seen = as_bytes(layer)
    assert seen.shape == (BLOCKS, 16, 2, 16) and seen[0].is_contiguous()
    assert seen.data_ptr() == layer.data_ptr()


def test_what_is_not_as_written_fails_alone(tmp_path: Path) -> None:
    cache = layers(torch.float32)
    was = [layer.clone() for layer in cache]
    tier = FileTier(cache, SLOTS, tmp_path)
    tier.write([0, 1], [0, 1])
    size = sum(layer[0].numel() * 4 for layer in cache)
    byte = os.pread(tier._file, 1, size + 5)
    os.pwrite(tier._file, bytes([byte[0] ^ 1]), size + 5)
    for layer in cache:
        layer.zero_()
    assert tier.read([0, 1], [2, 3]) == [3]
    assert torch.equal(cache[1][2], was[1][0])
    assert not cache[1][3].any(), "nothing of a block that is not what it was is used"
    tier.close()


def test_a_slot_that_was_never_written_fails(tmp_path: Path) -> None:
    tier = FileTier(layers(torch.float32), SLOTS, tmp_path)
    assert tier.read([2], [0]) == [0]
    tier.close()


def test_a_file_that_cannot_be_written_fails(tmp_path: Path) -> None:
    tier = FileTier(layers(torch.float32), SLOTS, tmp_path)
    tier.write([0], [1])
    real, tier._file = tier._file, os.open(os.devnull, os.O_RDONLY)
    assert tier.write([0, 1], [1, 2]) == [1, 2]
    tier.close()
    tier._file = real
    assert tier.read([1], [0]) == [0], "what was there before the failed write is not used either"
    tier.close()


def test_no_room_is_an_error_at_once() -> None:
    cache = [torch.zeros(2, 1 << 20)]
    with pytest.raises(OSError, match="No space left"):
        FileTier(cache, 1 << 40, Path("/dev/shm"))


def test_nothing_is_left_by_a_killed_process(tmp_path: Path) -> None:
    program = """
        import sys, torch
        from pathlib import Path
        from vllm_qllm.kv.file_tier import FileTier
        tier = FileTier([torch.ones(4, 1 << 20)], 4, Path(sys.argv[1]))
        tier.write([0, 1], [0, 1])
        print("written", flush=True)
        sys.stdin.read()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"written\n"
    assert list(tmp_path.iterdir()) == [], "nobody can read it, and there is nothing to clean up"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert list(tmp_path.iterdir()) == []


def test_layers_that_share_a_cache_are_copied_once() -> None:
    cache = torch.zeros(BLOCKS * 2, 3)
    views = block_views({"first": cache, "second": cache}, BLOCKS)
    assert {name: view.shape for name, view in views.items()} == {"first": (BLOCKS, 2, 3)}
    other = torch.zeros(BLOCKS, 3)
    mover = Mover({"first": cache, "second": cache, "third": other}, BLOCKS, SLOTS)
    assert mover.layers == {"first", "third"}
    assert mover.served == {"third"}, "which of the others reads first is not known"


def test_neighbours_are_copied_together() -> None:
    assert list(runs([], [])) == []
    assert list(runs([4, 5, 6, 8, 9], [0, 1, 3, 4, 5])) == [(4, 0, 2), (6, 3, 1), (8, 4, 2)]
    rng = random.Random(0)
    for _ in range(200):
        from_, to = ([rng.randrange(6) for _ in range(7)] for _ in range(2))
        pairs = [(a + i, b + i) for a, b, n in runs(from_, to) for i in range(n)]
        assert pairs == list(zip(from_, to, strict=True))


def test_a_layer_is_read_alone() -> None:
    cache = layers(torch.bfloat16)
    was = [layer.clone() for layer in cache]
    mover = Mover({str(i): layer for i, layer in enumerate(cache)}, BLOCKS, SLOTS)
    assert mover.served == {"0", "1", "2"}
    report = CopyReport()
    mover.offload([(1, 0), (4, 1)], report)
    for layer in cache:
        layer.zero_()
    mover.restore_layer("1", [(0, 2), (1, 3)], report)
    assert not cache[0].any() and not cache[2].any()
    assert torch.equal(cache[1][2], was[1][1]) and torch.equal(cache[1][3], was[1][4])
    assert report.restored == 0 and report.restore_seconds > 0, "the caller counts blocks"
    mover.close()


def test_a_mover_says_what_it_did(tmp_path: Path) -> None:
    cache = layers(torch.float32)
    mover = Mover({str(i): layer for i, layer in enumerate(cache)}, BLOCKS, SLOTS, tmp_path)
    report = CopyReport()
    mover.offload([(0, 0), (1, 1)], report)
    assert mover.restore([(0, 3), (2, 4)], report) == {4}
    assert (report.offloaded, report.restored, report.errors) == (2, 2, 0)
    assert report.offload_seconds > 0 and report.restore_seconds > 0
    assert mover.restore([], report) == set() and report.restored == 2
    mover.close()
