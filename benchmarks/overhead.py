"""What the plugin costs when nobody urgent comes: best-effort work only, off against on, in pairs.

Two servers stay up, one stock, one with the plugin; an idle one uses no processor time. A fixed
batch of work goes to one, then to the other, the order changing from pair to pair, so that a
machine whose speed drifts slows both sides of a pair alike. The number is the median over pairs of
(seconds with the plugin / seconds without) - 1.
"""

import dataclasses
import random
import statistics
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.load import run_batch
from benchmarks.measure import Plan
from benchmarks.progress import Progress
from benchmarks.report import number, percentile
from benchmarks.server import serve
from benchmarks.systems import SYSTEMS

OFF, ON = "be-alone", "be-alone-strict"
BOOTSTRAPS = 4000


def interval(ratios: list[float]) -> tuple[float, float]:
    """A 95 % interval of the median, by resampling the pairs."""
    draw = random.Random(0)
    medians = [statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(BOOTSTRAPS)]
    low, high = percentile(medians, 2.5), percentile(medians, 97.5)
    assert low is not None and high is not None
    return low, high


def overhead(
    plan: Plan, pairs: int, logs: Path, progress: Progress, sides: tuple[str, str]
) -> dict[str, Any]:
    """Measure ``pairs`` pairs after one for warm-up; a ratio above 1 is a cost."""
    off, on = sides
    load = dataclasses.replace(plan.load, ls_rate=0.0)
    seconds: dict[str, list[float]] = {off: [], on: []}
    with ExitStack() as stack:
        urls = {}
        for name in (off, on):
            progress.stage(name)
            arguments = (*plan.common, *SYSTEMS[name].arguments)
            log = logs / f"overhead-{name}.log"
            server = stack.enter_context(serve(plan.model, arguments, log, progress=progress))
            urls[name] = server.url
        for pair in range(pairs + 1):
            order = (off, on) if pair % 2 else (on, off)
            for name in order:
                progress.stage(f"pair {pair}/{pairs}")
                progress.say(name)
                took = run_batch(
                    urls[name],
                    load,
                    pair * load.be_clients,
                    priorities=SYSTEMS[name].priorities,
                )
                if pair:  # the first warms up
                    seconds[name].append(took)
    ratios = [with_ / without for without, with_ in zip(seconds[off], seconds[on], strict=True)]
    low, high = interval(ratios)
    return {
        "sides": sides,
        "load": dataclasses.asdict(load),
        "seconds": seconds,
        "ratios": ratios,
        "median": statistics.median(ratios),
        "interval95": (low, high),
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
