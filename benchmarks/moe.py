# SPDX-License-Identifier: Apache-2.0
"""``make bench-moe``: one MoE layer on the CPU, vLLM's kernel beside the one that can stop.

The two take turns on the same inputs, so that what else the machine does meets both. A time is
the router's sort, both projections and the weighted sum; the routing itself is outside.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch

from benchmarks.measurement.conditions import conditions
from vllm_qllm.kernels.moe import cpu, cpu_library
from vllm_qllm.percentile import percentile


class Shape(NamedTuple):
    hidden: int
    inter: int
    experts: int
    topk: int


SHAPES = (
    Shape(1024, 1792, 8, 2),
    Shape(2048, 768, 128, 8),
    Shape(2048, 1024, 64, 8),
    Shape(4096, 1536, 16, 2),
)
TOKENS = (1, 2, 4, 8, 16, 64, 256, 512, 1024, 2048, 4096)
BYTES = 5 << 30
"""Of weights, in both layouts together."""
COLUMNS = "tokens|stock ms|spread|ours ms|spread|ratio|TFLOP/s|items|longest item ms"


class Times(NamedTuple):
    stock: list[float]
    ours: list[float]
    items: int
    longest: float


def quartiles(times: list[float]) -> tuple[float, float, float]:
    low, middle, high = (percentile(times, p) for p in (25, 50, 75))
    assert low is not None and middle is not None and high is not None
    return low, middle, high


def timed(call: Callable[[], object]) -> float:
    """Milliseconds. Of one thread its CPU time, which leaves out the time others had the core."""
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    began = clock()
    call()
    return 1e3 * (clock() - began)


class Layer:
    """Random weights of one shape, packed for both kernels."""

    def __init__(self, shape: Shape, w13: torch.Tensor, w2: torch.Tensor):
        from vllm._custom_ops import cpu_fused_moe, cpu_prepack_moe_weight

        self.shape, self._stock_kernel = shape, cpu_fused_moe
        self.isa = "amx" if torch.cpu._is_amx_tile_supported() else "vec"
        self.stock_weights = [cpu_prepack_moe_weight(w, self.isa) for w in (w13, w2)]
        self.our_weights = [cpu.pack(w) for w in (w13, w2)]

    def route(self, x: torch.Tensor) -> None:
        """Take the rows ``x`` [tokens, hidden] as input, and send them to experts at random."""
        self.x = x
        logits = torch.randn(x.shape[0], self.shape.experts)
        weights, ids = torch.topk(logits.softmax(-1), self.shape.topk)
        self.router = weights / weights.sum(-1, keepdim=True), ids.int()

    def stock(self) -> torch.Tensor:
        output = torch.empty_like(self.x)
        self._stock_kernel(
            output, self.x, *self.stock_weights, None, None, *self.router, "silu", self.isa, False
        )
        return output

    def work(self) -> cpu.Work:
        output = torch.empty_like(self.x)
        w13, w2 = self.our_weights
        weights, ids = self.router
        return cpu.Work(output, self.x, w13, w2, None, None, weights, ids, "silu")

    def ours(self) -> None:
        self.work().run()

    def longest_item(self) -> float:
        work, longest, done = self.work(), 0.0, False
        while not done:
            began = time.thread_time()
            done = work.run(max_items=1)
            longest = max(longest, 1e3 * (time.thread_time() - began))
        return longest


class Model:
    """Layers one after another, as many as fit into memory and at most as many as a model has.

    One layer called over and over would find its weights in the last-level cache.
    """

    def __init__(self, shape: Shape, most: int):
        generator = torch.Generator().manual_seed(0)
        experts, hidden, inter = shape.experts, shape.hidden, shape.inter
        w13 = torch.empty(experts, 2 * inter, hidden, dtype=torch.bfloat16)
        w2 = torch.empty(experts, hidden, inter, dtype=torch.bfloat16)
        for weight in (w13, w2):
            weight.normal_(0, weight.shape[2] ** -0.5, generator=generator)
        self.bytes = w13.nbytes + w2.nbytes
        self.layers = [
            Layer(shape, w13, w2) for _ in range(max(1, min(most, BYTES // (2 * self.bytes))))
        ]

    def stock(self) -> None:
        for layer in self.layers:
            layer.stock()

    def ours(self) -> None:
        for layer in self.layers:
            layer.ours()

    def measure(self, tokens: int, seconds: float) -> Times:
        """Passes of both kernels in turn for ``seconds``, at least five; times are of one layer."""
        x = torch.randn(tokens, self.layers[0].shape.hidden).bfloat16()
        for layer in self.layers:
            layer.route(x)
        first, count = self.layers[0], len(self.layers)
        longest = min(layer.longest_item() for layer in self.layers[:3])
        times = Times([], [], first.work().items, longest)
        end = time.monotonic() + seconds
        while time.monotonic() < end or len(times.ours) < 5:
            for layer in self.layers:
                layer.route(x)
            times.stock.append(timed(self.stock) / count)
            times.ours.append(timed(self.ours) / count)
        return times


def row(shape: Shape, tokens: int, times: Times) -> str:
    cells: list[str] = [str(tokens)]
    for kernel in (times.stock, times.ours):
        low, middle, high = quartiles(kernel)
        cells += [f"{middle:.2f}", f"{low:.2f}-{high:.2f}"]
    # The median of the ratios of neighbours in time: what disturbs both falls out of it.
    ratio = statistics.median(s / o for s, o in zip(times.stock, times.ours, strict=True))
    flops = 6 * tokens * shape.topk * shape.hidden * shape.inter
    speed = flops / quartiles(times.ours)[1] / 1e9
    cells += [f"{ratio:.2f}", f"{speed:.2f}", str(times.items), f"{times.longest:.2f}"]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each size")
    parser.add_argument("--tokens", type=int, nargs="+", default=TOKENS)
    parser.add_argument("--layers", type=int, default=16, help="at most; 1 keeps weights cached")
    parser.add_argument("--shapes", nargs="+", help="hidden,inter,experts,topk", default=None)
    options = parser.parse_args()
    if reason := cpu.available():
        raise SystemExit(reason)
    shapes = [Shape(*map(int, text.split(","))) for text in options.shapes or ()] or SHAPES
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    torch.cpu._init_amx()
    from vllm.platforms import current_platform

    current_platform.import_kernels()
    for key, value in conditions().items():
        print(f"{key}: {value}")
    print(f"kernel: {cpu_library.load().kernel}, threads: {options.threads}")
    print("Medians, quartiles as spread; ratio: median of stock / ours, pair by pair.")
    for shape in shapes:
        model = Model(shape, options.layers)
        count, load = len(model.layers), os.getloadavg()[0]
        print(f"\n{shape}, {count} layers of {model.bytes >> 20} MiB, load average {load:.1f}\n")
        titles = COLUMNS.split("|")
        print("| " + " | ".join(titles) + " |\n" + "|---" * len(titles) + "|", flush=True)
        for tokens in options.tokens:
            print(row(shape, tokens, model.measure(tokens, options.seconds)), flush=True)


if __name__ == "__main__":
    main()
