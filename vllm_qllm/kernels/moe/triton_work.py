# SPDX-License-Identifier: Apache-2.0
"""One MoE layer of one step on the GPU, which can be stopped and launched again."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from vllm_qllm.kernels.moe import triton_kernel
from vllm_qllm.kernels.moe.tile_map import make_tile_map
from vllm_qllm.kernels.moe.tile_shape import TileShape, shapes_for

ACTIVATIONS = ("silu", "gelu", "gelu_tanh")
# Row tiles that share the weights of their columns while those are in the second-level cache.
GROUP = 8
SUM_COLUMNS, SUM_WARPS, SUM_PROGRAMS = 128, 4, 4


class Stop(NamedTuple):
    """What stops a launch.

    Attributes:
        flag: one int64 that the device can read and somebody else writes: on the device, or
            pinned. The step that is asked to stop.
        number: of the step that is launched.
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
        # Device memory: what was claimed must survive the launch that claimed it.
        self._counters = torch.zeros(3, dtype=torch.int32, device=hidden.device)

    def launch(self, stop: Stop | None = None) -> None:
        """Enqueue what is left, until the flag names the step; returns without waiting.

        Args:
            stop: None to look at no flag, as in a CUDA graph.
        """
        if self._tokens == 0:
            return
        kernel, tile_map = triton_kernel, self._map
        gate_up, down, tokens = self._shapes
        order = tile_map.pairs, tile_map.tile_expert, tile_map.tile_first, tile_map.tile_size
        # Without a flag any int64 on the device will do: it is not read.
        flag, number = (self._counters, 0) if stop is None else stop
        state = tile_map.tiles, self._counters, flag, number
        watch = stop is not None
        kernel.gate_up[self._grid(gate_up, self._I)](
            self._hidden,
            self._w13,
            self._bias13,
            self._inter,
            *order,
            *state,
            self._H,
            self._I,
            TOP_K=self._top_k,
            ACTIVATION=self._activation,
            HAS_BIAS=self._bias13 is not None,
            EVEN=self._H % gate_up.depth == 0,
            WATCH=watch,
            **_options(gate_up),
        )
        kernel.down[self._grid(down, self._H)](
            self._inter,
            self._w2,
            self._bias2,
            self._parts,
            *order,
            *state,
            self._H,
            self._I,
            HAS_BIAS=self._bias2 is not None,
            EVEN=self._I % down.depth == 0,
            WATCH=watch,
            BEFORE=gate_up.columns,
            **_options(down),
        )
        kernel.weighted_sum[(min(-(-self._tokens // tokens), self._programs(SUM_PROGRAMS)),)](
            self._parts,
            self._topk_weights,
            tile_map.local_ids,
            self.output,
            *state,
            self._tokens,
            self._H,
            TOP_K=self._top_k,
            HAS_WEIGHTS=self._topk_weights is not None,
            WATCH=watch,
            THREADS=32 * SUM_WARPS,
            TOKENS=tokens,
            COLUMNS=SUM_COLUMNS,
            BEFORE=down.columns,
            num_warps=SUM_WARPS,
            enable_fp_fusion=True,
        )

    def is_done(self) -> bool:
        """Whether the output is complete; waits for the launches so far."""
        # The last phase begins when the others are complete, so its counter says it all.
        return self.claimed()[2] >= -(-self._tokens // self._shapes.tokens)

    def claimed(self) -> list[int]:
        """Tiles claimed in each phase, and some beyond the end; waits for the launches so far."""
        return self._counters.tolist()

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
