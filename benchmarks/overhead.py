# SPDX-License-Identifier: Apache-2.0
"""What the plugin costs when nobody urgent comes: best-effort work only, off against on, in pairs.

    python -m benchmarks.overhead [--pairs N] [--sides OFF ON]

Two servers stay up, one stock, one with the plugin; an idle one uses no processor time. A fixed
batch of work goes to one, then to the other, the order changing from pair to pair, so that a
machine whose speed drifts slows both sides of a pair alike. The number is the median over pairs of
(seconds with the plugin / seconds without) - 1.
"""

import argparse
import asyncio
import random
import statistics
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.load.client import Client
from benchmarks.load.lengths import Fixed
from benchmarks.load.streams import ClosedLoop
from benchmarks.measurement.conditions import ROOT, conditions, sentence
from benchmarks.measurement.progress import Progress
from benchmarks.models.model import SHAPES, make
from benchmarks.record.record import BE, OK
from benchmarks.record.summary import number
from benchmarks.scenarios.scenario import COMMON
from benchmarks.systems import SYSTEMS
from benchmarks.systems.server import Server, ServerDied, exit_on_signals, reported, serve
from vllm_qllm.percentile import percentile

OFF, ON = "be-alone", "be-alone-strict"
BATCH = ClosedLoop(BE, 4, Fixed(2000, 64))
BOOTSTRAPS = 4000
RUNS, LOGS = (ROOT / "benchmarks" / name for name in (".runs", ".logs"))


def interval(ratios: list[float]) -> tuple[float, float]:
    """A 95 % interval of the median, by resampling the pairs."""
    draw = random.Random(0)
    medians = [statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(BOOTSTRAPS)]
    low, high = percentile(medians, 2.5), percentile(medians, 97.5)
    assert low is not None and high is not None
    return low, high


def batch_seconds(name: str, server: Server, first: int, seed: int) -> float:
    """Send the batch's requests at once, numbered from ``first``; seconds until all end."""

    async def batch() -> float:
        async with Client(server, seed, SYSTEMS[name].priorities) as client:
            began = time.monotonic()
            jobs = [BATCH.job(seed, first + i, 0.0) for i in range(BATCH.clients)]
            done = await asyncio.gather(*(client.send(job, began) for job in jobs))
            took = time.monotonic() - began
        for exchange in done:
            if exchange.outcome != OK:
                raise ServerDied(f"{name}: a request failed: {exchange.error}")
        return took

    return asyncio.run(batch())


def overhead(
    model: Path, common: tuple[str, ...], pairs: int, sides: tuple[str, str], seed: int
) -> dict[str, Any]:
    """Measure ``pairs`` pairs after one for warm-up; a ratio above 1 is a cost."""
    off, on = sides
    progress = Progress()
    seconds: dict[str, list[float]] = {off: [], on: []}
    with ExitStack() as stack:
        servers = {}
        for name in (off, on):
            progress.stage(name)
            arguments = (*common, *SYSTEMS[name].arguments)
            log = LOGS / f"overhead-{name}.log"
            servers[name] = stack.enter_context(serve(model, arguments, log, progress=progress))
        for pair in range(pairs + 1):
            for name in (off, on) if pair % 2 else (on, off):
                progress.stage(f"pair {pair}/{pairs}")
                progress.say(name)
                took = batch_seconds(name, servers[name], pair * BATCH.clients, seed)
                if pair:  # the first warms up
                    seconds[name].append(took)
    ratios = [with_ / without for without, with_ in zip(seconds[off], seconds[on], strict=True)]
    return {
        "sides": sides,
        "batch": msgspec.to_builtins(BATCH),
        "seconds": seconds,
        "ratios": ratios,
        "median": statistics.median(ratios),
        "interval95": interval(ratios),
        "quartiles": (percentile(ratios, 25), percentile(ratios, 75)),
    }


def report(result: dict[str, Any]) -> str:
    """A paragraph for a person."""
    low, high = result["interval95"]
    off, on = result["sides"]
    batch = number(statistics.median(result["seconds"][off]))
    quartiles = [f"{q - 1:+.2%}" for q in result["quartiles"]]
    return (
        f"{on} against {off}, BE only, {len(result['ratios'])} pairs of a batch that takes "
        f"{batch} s: median {result['median'] - 1:+.2%} time (95 % interval {low - 1:+.2%} to "
        f"{high - 1:+.2%}; quartiles of the pairs {' to '.join(quartiles)})"
    )


@reported
def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--sides", nargs=2, choices=SYSTEMS, default=(OFF, ON), help="what to pair")
    parser.add_argument("--model", choices=SHAPES, default="mixtral-747m")
    parser.add_argument("--models", type=Path, default=ROOT / "benchmarks" / ".models")
    parser.add_argument("--eager", action="store_true", help="vLLM's --enforce-eager")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RUNS / "overhead.json")
    arguments = parser.parse_args()
    exit_on_signals()
    facts = conditions()
    common = (*COMMON, *(("--enforce-eager",) if arguments.eager else ()))
    model = make(arguments.model, arguments.models / arguments.model)
    result = overhead(model, common, arguments.pairs, tuple(arguments.sides), arguments.seed)
    result |= {"model": arguments.model, "conditions": facts, "at": time.strftime("%F %T%z")}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1))
    print(f"\n{sentence(facts)}\n{arguments.model}\n{report(result)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
