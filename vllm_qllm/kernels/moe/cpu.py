# SPDX-License-Identifier: Apache-2.0
"""A mixture-of-experts layer on the CPU that can stop between work items (csrc/moe_cpu.cpp)."""

from __future__ import annotations

import torch

from vllm_qllm.kernels.moe import cpu_library

ALIGNMENT = 32
"""Rows and columns of every weight matrix must be multiples of this."""

ACTIVATIONS = {"silu": 0, "gelu": 1, "gelu_tanh": 2, "swigluoai": 3}


def available() -> str | None:
    """None when the kernel can be used in this process, otherwise why not, in words."""
    return cpu_library.load().reason


def pack(weight: torch.Tensor) -> torch.Tensor:
    """A copy of weight [E, N, K] bf16 in the order the kernel reads, [E, N/32, K/2, 32, 2].

    The shape is kept, so that the result says what it holds. ValueError for another type, or when
    N or K is not a multiple of 32.
    """
    if weight.dtype != torch.bfloat16 or weight.dim() != 3:
        raise ValueError(f"weights must be [E, N, K] in bfloat16, got {_described(weight)}")
    experts, n, k = weight.shape
    if n % ALIGNMENT or k % ALIGNMENT:
        raise ValueError(f"sides must be multiples of {ALIGNMENT}, got {_described(weight)}")
    source, packed = weight.contiguous(), torch.empty_like(weight.contiguous())
    cpu_library.need().qllm_pack(source.data_ptr(), packed.data_ptr(), experts, n, k)
    return packed


class Work:
    """One call of the layer, done item by item: ``run`` until it is True, then ``output`` holds it.

    hidden and output [n, H] bf16, each row contiguous; w13 [E, 2 I, H] and w2 [E, H, I] as ``pack``
    returns them; biases [E, 2 I] and [E, H] bf16 or None; topk_weights [n, k] float32; topk_ids
    [n, k] int32 or int64, where an id outside 0..E-1 contributes nothing. With
    ``apply_router_weight_on_input`` the router's weights are in ``hidden`` already, as in vLLM.

    All tensors must stay unchanged until the work is done. Several may be in progress on one
    thread; each holds its own scratch memory. Raises ValueError for tensors that do not fit.
    """

    def __init__(
        self,
        output: torch.Tensor,
        hidden: torch.Tensor,
        w13: torch.Tensor,
        w2: torch.Tensor,
        bias13: torch.Tensor | None,
        bias2: torch.Tensor | None,
        topk_weights: torch.Tensor,
        topk_ids: torch.Tensor,
        activation: str,
        apply_router_weight_on_input: bool = False,
        kernel: str = "",
    ):
        self._handle: int | None = None
        library = cpu_library.load()
        if library.reason is not None:
            raise RuntimeError(library.reason)
        self._c = library.functions
        topk_weights, topk_ids = topk_weights.contiguous(), topk_ids.contiguous()
        tokens, hidden_size = hidden.shape
        experts, inter_size = w13.shape[0], w13.shape[1] // 2
        _check("output", output, torch.bfloat16, (tokens, hidden_size))
        _check("hidden", hidden, torch.bfloat16, (tokens, hidden_size))
        _check("w13", w13, torch.bfloat16, (experts, 2 * inter_size, hidden_size))
        _check("w2", w2, torch.bfloat16, (experts, hidden_size, inter_size))
        if bias13 is not None:
            _check("bias13", bias13, torch.bfloat16, (experts, 2 * inter_size))
        if bias2 is not None:
            _check("bias2", bias2, torch.bfloat16, (experts, hidden_size))
        _check("topk_weights", topk_weights, torch.float32, (tokens, topk_ids.shape[1]))
        if topk_ids.dtype not in (torch.int32, torch.int64):
            raise ValueError(f"topk_ids must be int32 or int64, got {_described(topk_ids)}")
        if topk_ids.shape[0] != tokens:
            raise ValueError(f"topk_ids must have {tokens} rows, got {_described(topk_ids)}")
        if hidden_size % ALIGNMENT or inter_size % ALIGNMENT:
            raise ValueError(f"{hidden_size} or {inter_size} is not a multiple of {ALIGNMENT}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"unknown activation {activation!r}")
        # What the kernel reads and writes must live as long as this does.
        self._tensors = (output, hidden, w13, w2, bias13, bias2, topk_weights, topk_ids)
        problem = cpu_library.Problem(
            *(None if t is None else t.data_ptr() for t in self._tensors),
            tokens,
            topk_ids.shape[1],
            experts,
            hidden_size,
            inter_size,
            topk_ids.dtype == torch.int64,
            ACTIVATIONS[activation],
            apply_router_weight_on_input,
            cpu_library.KERNELS[kernel or library.kernel],
        )
        self._handle = self._c.qllm_work_new(problem)
        if self._handle is None:
            raise MemoryError(f"no scratch memory for {tokens} tokens")
        self.items: int = self._c.qllm_work_items(self._handle)
        """How many work items there are."""
        self.position = 0
        """How many of them are done."""

    def run(self, stop_address: int = 0, stop_value: int = 0, max_items: int = -1) -> bool:
        """Do items, at most ``max_items`` when that is not negative; True when all are done.

        ``stop_address`` is that of an 8-byte word, 0 for none. It is read before each item, and
        while it equals ``stop_value`` no further item is begun. Does not hold the GIL.
        """
        self.position = self._c.qllm_work_run(self._handle, stop_address, stop_value, max_items)
        return self.position == self.items

    def __del__(self) -> None:
        if self._handle is not None:
            self._c.qllm_work_delete(self._handle)
            self._handle = None


def _check(name: str, tensor: torch.Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    if tensor.dtype != dtype or tensor.shape != shape or not tensor.is_contiguous():
        raise ValueError(
            f"{name} must be contiguous {list(shape)} {dtype}, got {_described(tensor)}"
        )


def _described(tensor: torch.Tensor) -> str:
    contiguous = "" if tensor.is_contiguous() else ", not contiguous"
    return f"{list(tensor.shape)} {tensor.dtype}{contiguous}"
