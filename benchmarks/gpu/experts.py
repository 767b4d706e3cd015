# SPDX-License-Identifier: Apache-2.0
"""The Triton kernel of an MoE layer on a GPU: equal, stopped, and beside vLLM's own.

    python -m benchmarks.gpu.experts [equal] [stop] [speed]

- equal: relative error against the float32 reference, ours and vLLM's.
- stop: bits of a layer that was stopped at random times and launched again; time from raising the
  flag to the end of what looks at it, as the host sees both.
- speed: one layer, ours and vLLM's ``fused_experts``, both in CUDA graphs (as decode steps run) and
  launched one by one (as prefill steps do), alternating; medians.
"""

import argparse
import functools
import itertools
import random
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch

from vllm_qllm.execution.gpu.device_flag import DeviceFlag
from vllm_qllm.kernels.moe import reference
from vllm_qllm.kernels.moe.triton_work import Stop, Work
from vllm_qllm.percentile import percentile


class Layer(NamedTuple):
    """Sizes of one MoE layer."""

    name: str
    hidden: int
    inter: int
    experts: int
    top_k: int


MIXTRAL = Layer("Mixtral-8x7B", 4096, 14336, 8, 2)
QWEN = Layer("Qwen3-30B-A3B", 2048, 768, 128, 8)
LAYERS = (MIXTRAL, QWEN)
SIZES = (1, 16, 64, 256, 512, 2048, 8192, 16384)


class Inputs(NamedTuple):
    """Tensors of one call, on the GPU."""

    hidden: torch.Tensor
    w13: torch.Tensor
    w2: torch.Tensor
    weights: torch.Tensor
    ids: torch.Tensor


def inputs(layer: Layer, tokens: int, dtype: torch.dtype, weights: Inputs | None = None) -> Inputs:
    """Random inputs, with the weights of ``weights`` if given; each expert's scale is kept."""
    H, I, E = layer.hidden, layer.inter, layer.experts  # noqa: E741

    def normal(*shape: int, spread: float = 1.0) -> torch.Tensor:
        return torch.empty(shape, device="cuda", dtype=dtype).normal_(0, spread)

    logits = torch.randn(tokens, E, device="cuda")
    chosen, ids = torch.topk(logits.softmax(-1), layer.top_k)
    return Inputs(
        normal(tokens, H),
        weights.w13 if weights else normal(E, 2 * I, H, spread=H**-0.5),
        weights.w2 if weights else normal(E, H, I, spread=I**-0.5),
        (chosen / chosen.sum(-1, keepdim=True)).float(),
        ids.int(),
    )


def ours(x: Inputs, stop: Stop | None = None, activation: str = "silu") -> torch.Tensor:
    """One layer by our kernel, launched once."""
    work = Work(*x, activation=activation)
    work.launch(stop)
    return work.output


def watched(x: Inputs, flag: DeviceFlag) -> torch.Tensor:
    """The same, looking at a flag that nobody raises."""
    return ours(x, Stop(flag.tensor, flag.new_number()))


def theirs(x: Inputs) -> torch.Tensor:
    """One layer by vLLM's kernel."""
    from vllm.model_executor.layers.fused_moe import fused_experts

    return fused_experts(*x)


def error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Relative, in the Frobenius norm; NaN never passes for small."""
    return ((found.float() - wanted).norm() / wanted.norm()).item()


def equal() -> None:
    """Print the errors of both kernels for many shapes."""
    print("layer | tokens | dtype | activation | error ours | error vLLM's | bits the same twice")
    cases = [
        Layer("8 of 1024x1792", 1024, 1792, 8, 2),
        Layer("64 of 512x200", 512, 200, 64, 4),
        Layer("256 of 256x128", 256, 128, 256, 8),
        QWEN,
    ]
    for layer, dtype in itertools.product(cases, (torch.bfloat16, torch.float16)):
        weights = None
        for tokens in (1, 7, 64, 333, 1500, 8192):
            weights = x = inputs(layer, tokens, dtype, weights)
            for activation in ("silu", "gelu", "gelu_tanh"):
                if activation != "silu" and tokens != 333:
                    continue
                wanted = reference.moe(*x, activation=activation)
                found, again = ours(x, activation=activation), ours(x, activation=activation)
                stock = f"{error(theirs(x), wanted):.2e}" if activation == "silu" else "-"
                print(
                    f"{layer.name} | {tokens} | {str(dtype)[6:]} | {activation} | "
                    f"{error(found, wanted):.2e} | {stock} | {torch.equal(found, again)}"
                )


def stop(rounds: int = 60) -> None:
    """Stop launches at random times; print whether bits are equal, and how soon they end."""
    print(
        "layer | tokens | launches stopped | bits equal | flag to exit p50, p90, max [us] | "
        "whole [ms]"
    )
    for layer in LAYERS:
        weights = None
        for tokens in (512, 2048, 8192):
            weights = x = inputs(layer, tokens, torch.bfloat16, weights)
            flag = DeviceFlag(torch.device("cuda"))
            wanted = ours(x)
            for _ in range(3):
                torch.cuda.synchronize()
                start = time.perf_counter()
                ours(x, Stop(flag.tensor, flag.new_number()))
                torch.cuda.synchronize()
                whole = time.perf_counter() - start
            stopped, same, exits = 0, 0, []
            for _ in range(rounds):
                work = Work(*x, activation="silu")
                torch.cuda.synchronize()
                while True:
                    watched = torch.cuda.Event()
                    number = flag.new_number()
                    work.launch(Stop(flag.tensor, number), watched.record)
                    raise_at = time.perf_counter() + random.uniform(0, 1.2 * whole)
                    at = None
                    while not watched.query():
                        if at is None and time.perf_counter() >= raise_at:
                            at = time.perf_counter()
                            flag.raise_for(number)
                    ended = time.perf_counter()
                    if not work.was_stopped():
                        break
                    stopped += 1
                    assert at is not None
                    exits.append(ended - at)
                assert work.is_done()
                same += torch.equal(work.output, wanted)
            exits = [1e6 * e for e in exits] or [float("nan")]
            p50, p90, most = (percentile(exits, p) for p in (50, 90, 100))
            print(
                f"{layer.name} | {tokens} | {stopped} | {same} of {rounds} | "
                f"{p50:.0f}, {p90:.0f}, {most:.0f} | {1e3 * whole:.2f}"
            )


def speed(rounds: int = 7) -> None:
    """Print times of both kernels at all sizes."""
    print(
        "layer | tokens | graph: vLLM's, ours [ms], ratio | "
        "launched: vLLM's, ours, watched [ms], ratio"
    )
    for layer in LAYERS:
        weights = None
        for tokens in SIZES:
            weights = x = inputs(layer, tokens, torch.bfloat16, weights)
            flag = DeviceFlag(torch.device("cuda"))
            calls: list[Callable[[], object]] = [
                functools.partial(theirs, x),
                functools.partial(ours, x),
                functools.partial(watched, x, flag),
            ]
            graphs = [_captured(call).replay for call in calls[:2]]
            a, b = _alternate(graphs, rounds)
            c, d, e = _alternate(calls, rounds)
            print(
                f"{layer.name} | {tokens} | {a:.3f}, {b:.3f}, {a / b:.2f} | "
                f"{c:.3f}, {d:.3f}, {e:.3f}, {c / d:.2f}",
                flush=True,
            )


def _captured(call: Callable[[], object]) -> torch.cuda.CUDAGraph:
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph


def _alternate(calls: list[Callable[[], object]], rounds: int) -> list[float]:
    """Median milliseconds of each call, in turns; what a call takes sets how often it is made."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds + 1):
        for call, of in zip(calls, times, strict=True):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            count = 1 if not of else max(1, min(50, int(10 / of[-1])))
            torch.cuda.synchronize()
            begin.record()
            for _ in range(count):
                call()
            end.record()
            torch.cuda.synchronize()
            of.append(begin.elapsed_time(end) / count)
    return [statistics.median(of[1:]) for of in times]


if __name__ == "__main__":
    parts = {"equal": equal, "stop": stop, "speed": speed}
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.experts", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("parts", nargs="*", choices=[*parts, []], default=[*parts])
    torch.manual_seed(0)
    random.seed(0)
    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    for part in parser.parse_args().parts:
        parts[part]()
