# SPDX-License-Identifier: Apache-2.0
"""One MoE layer of one step on the GPU, which can be stopped and launched again."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from vllm_qllm.kernels.moe import triton_kernel
from vllm_qllm.kernels.moe.tile_map import make_tile_map
from vllm_qllm.kernels.moe.tile_shape import TileShape, shapes_for

ACTIVATIONS = ("silu", "gelu", "gelu_tanh")
# Row tiles that share the weights of their columns while those are in the second-level cache.
GROUP = 8
SUM_COLUMNS, SUM_WARPS, SUM_PROGRAMS = 128, 4, 4
# How long the tail of a layer is: about what the host takes to enqueue what comes after it.
TAIL_SECONDS = 4e-4
# What one program does, roughly; it sets the length of the tail and nothing else.
FLOPS = 4e12


class Stop(NamedTuple):
    """What stops a launch.

    Attributes:
        flag: one int64 that somebody else writes, the launch that is asked to stop. On the device:
            each program reads it for each tile, and one read of host memory takes a microsecond.
        number: of the launch.
    """

    flag: torch.Tensor
    number: int


class Work:
    """The experts' part of one layer for the tokens of one step.

    Launch it until it is done. Whatever was stopped in between, the output has the same bits. All
    scratch is its own, so any other work may run between two launches. Inputs are read at
    each launch and must stay as they are; on a GPU all launches go to the stream that was current
    when the object was made.

    Args:
        hidden: [tokens, H], bfloat16 or float16.
        w13: [experts, 2 I, H], same type: gate above up.
        w2: [experts, H, I], same type.
        topk_weights: [tokens, top_k] floats; None to sum without weights, as is right where they
            were applied to ``hidden``.
        topk_ids: [tokens, top_k] integers; negative ones name no expert.
        activation: one of :data:`ACTIVATIONS`, applied to gate and multiplied by up.
        bias13: [experts, 2 I], or None.
        bias2: [experts, H], or None.
        expert_map: [all experts] integers: the row in ``w13`` and ``w2`` of each expert that is
            named in ``topk_ids``, or -1 if it is elsewhere; None if all are here.
        output: [tokens, H], written by launches; None to make one.
        tail: tiles of down that look at no flag; None for about TAIL_SECONDS of them.

    Raises:
        ValueError: shapes, types, layouts or the activation are none of these.
    """

    def __init__(
        self,
        hidden: torch.Tensor,
        w13: torch.Tensor,
        w2: torch.Tensor,
        topk_weights: torch.Tensor | None,
        topk_ids: torch.Tensor,
        activation: str,
        bias13: torch.Tensor | None = None,
        bias2: torch.Tensor | None = None,
        expert_map: torch.Tensor | None = None,
        output: torch.Tensor | None = None,
        tail: int | None = None,
    ) -> None:
        tokens, H = hidden.shape
        experts, _, I = w2.shape  # noqa: E741
        top_k = topk_ids.shape[1]
        if output is None:
            output = torch.empty_like(hidden)
        _check_shapes(
            hidden=(hidden, (tokens, H)),
            w13=(w13, (experts, 2 * I, H)),
            w2=(w2, (experts, H, I)),
            topk_weights=(topk_weights, (tokens, top_k)),
            topk_ids=(topk_ids, (tokens, top_k)),
            bias13=(bias13, (experts, 2 * I)),
            bias2=(bias2, (experts, H)),
            output=(output, (tokens, H)),
        )
        if hidden.dtype not in (torch.bfloat16, torch.float16):
            raise ValueError(f"hidden is {hidden.dtype}, neither bfloat16 nor float16")
        if not hidden.dtype == w13.dtype == w2.dtype == output.dtype:
            raise ValueError("hidden, w13, w2 and output are not of one type")
        if max(tokens, I) * H >= 2**31:
            raise ValueError(f"{tokens} x {H} or {I} x {H} elements need offsets of 64 bits")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation {activation!r} is none of {', '.join(ACTIVATIONS)}")
        self.output = output
        self._tokens, self._H, self._I, self._top_k = tokens, H, I, top_k
        self._hidden, self._w13, self._w2 = hidden, w13, w2
        self._bias13, self._bias2, self._topk_weights = bias13, bias2, topk_weights
        self._activation = activation
        self._multiprocessors, major = _device(hidden.device)
        self._shapes = shapes_for(tokens, top_k, experts, major)
        self._map = make_tile_map(topk_ids, experts, self._shapes.gate_up.rows, expert_map)
        self._inter = hidden.new_empty(tokens * top_k, I)
        self._parts = hidden.new_empty(tokens * top_k, H)
        self._tail = self._usual_tail() if tail is None else tail
        # Device memory: what was claimed must survive the launch that claimed it. The last one is
        # the number of row tiles, so that one copy tells the host all.
        self._counters = torch.zeros(5, dtype=torch.int32, device=hidden.device)
        self._counters[4:] = self._map.tiles
        self._seen: torch.Tensor | None = None

    def launch(self, stop: Stop | None = None, watched: Callable[[], None] = lambda: None) -> None:
        """Enqueue what is left, until the flag names the launch; returns without waiting.

        Args:
            stop: None to look at no flag, as in a CUDA graph.
            watched: called when all that looks at the flag has been enqueued, and what does not
                has not. Once the device has come so far, :meth:`was_stopped` knows.
        """
        if self._tokens == 0:
            return
        if stop is None:
            self._gate_up(None)
            self._down(None, 0, in_tail=False)
            self._sum(0)
            return
        self._gate_up(stop)
        self._down(stop, self._tail, in_tail=False)
        if self._seen is None:
            on_gpu = self._counters.is_cuda
            self._seen = torch.empty(5, dtype=torch.int32, pin_memory=on_gpu)
        self._seen.copy_(self._counters, non_blocking=True)
        watched()
        # These begin only if nothing was stopped.
        self._down(None, self._tail, in_tail=True)
        self._sum(self._tail)

    def was_stopped(self) -> bool:
        """Whether the last launch, which had a flag, left anything; see :meth:`launch`."""
        if self._seen is None:
            return False  # there were no tokens
        gate_up, down, *_, rows = self._seen.tolist()
        columns = -(-self._I // self._shapes.gate_up.columns)
        split = rows * -(-self._H // self._shapes.down.columns) - self._tail
        return bool(gate_up < rows * columns or down < split)

    def is_done(self) -> bool:
        """Whether the output is complete; waits for the launches so far."""
        # The last phase begins when the others are complete, so its counter says it all.
        return self.claimed()[3] >= -(-self._tokens // self._shapes.tokens)

    def claimed(self) -> list[int]:
        """Tiles claimed in each phase, and some beyond the end; waits for the launches so far."""
        return self._counters[:4].tolist()

    def _gate_up(self, stop: Stop | None) -> None:
        shape = self._shapes.gate_up
        triton_kernel.gate_up[self._grid(shape, self._I)](
            self._hidden,
            self._w13,
            self._bias13,
            self._inter,
            *self._queue(stop),
            self._H,
            self._I,
            TOP_K=self._top_k,
            ACTIVATION=self._activation,
            HAS_BIAS=self._bias13 is not None,
            EVEN=self._H % shape.depth == 0,
            WATCH=stop is not None,
            **_options(shape),
        )

    def _down(self, stop: Stop | None, tail: int, *, in_tail: bool) -> None:
        shape = self._shapes.down
        triton_kernel.down[self._grid(shape, self._H)](
            self._inter,
            self._w2,
            self._bias2,
            self._parts,
            *self._queue(stop),
            tail,
            self._H,
            self._I,
            TAIL=in_tail,
            HAS_BIAS=self._bias2 is not None,
            EVEN=self._I % shape.depth == 0,
            WATCH=stop is not None,
            BEFORE=self._shapes.gate_up.columns,
            **_options(shape),
        )

    def _sum(self, tail: int) -> None:
        tokens = self._shapes.tokens
        triton_kernel.weighted_sum[
            (min(-(-self._tokens // tokens), self._programs(SUM_PROGRAMS)),)
        ](
            self._parts,
            self._topk_weights,
            self._map.local_ids,
            self.output,
            self._map.tiles,
            self._counters,
            tail,
            self._tokens,
            self._H,
            TOP_K=self._top_k,
            HAS_WEIGHTS=self._topk_weights is not None,
            THREADS=32 * SUM_WARPS,
            TOKENS=tokens,
            COLUMNS=SUM_COLUMNS,
            BEFORE=self._shapes.down.columns,
            num_warps=SUM_WARPS,
            enable_fp_fusion=True,
        )

    def _queue(self, stop: Stop | None) -> tuple[Any, ...]:
        """The tiles, what has been claimed of them, and what stops that."""
        tile_map = self._map
        order = tile_map.pairs, tile_map.tile_expert, tile_map.tile_first, tile_map.tile_size
        # Without a flag any int64 on the device will do: it is not read.
        flag, number = (self._counters, 0) if stop is None else stop
        return *order, tile_map.tiles, self._counters, flag, number

    def _usual_tail(self) -> int:
        shape = self._shapes.down
        seconds = 2 * shape.rows * shape.columns * self._I / FLOPS
        (programs,) = self._grid(shape, self._H)
        return programs * math.ceil(TAIL_SECONDS / seconds)

    def _grid(self, shape: TileShape, columns: int) -> tuple[int]:
        tiles = self._map.tile_expert.numel() * -(-columns // shape.columns)
        # Small tiles leave room for more than one program on a multiprocessor.
        return (min(max(tiles, 1), self._programs(1 if shape.warps == 8 else 2)),)

    def _programs(self, each: int) -> int:
        return self._multiprocessors * each


def _check_shapes(**tensors: tuple[torch.Tensor | None, tuple[int, ...]]) -> None:
    for name, (tensor, shape) in tensors.items():
        if tensor is None:
            continue
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, not {shape}")
        if not tensor.is_contiguous() and name != "topk_ids":
            raise ValueError(f"{name} is not contiguous")


def _options(shape: TileShape) -> dict[str, Any]:
    return {
        "THREADS": 32 * shape.warps,
        "ROWS": shape.rows,
        "COLUMNS": shape.columns,
        "DEPTH": shape.depth,
        "GROUP": GROUP,
        "num_warps": shape.warps,
        "num_stages": shape.stages,
        "enable_fp_fusion": True,  # said, because Triton's default changes, and bits with it
    }


def _device(device: torch.device) -> tuple[int, int]:
    """Multiprocessors of a device, and the major number of its compute capability."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return properties.multi_processor_count, properties.major
    return 3, 9  # Triton's interpreter: more than one program, few enough to be quick
