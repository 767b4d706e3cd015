# SPDX-License-Identifier: Apache-2.0
"""(2) QLLM's own evaluation (arXiv 2503.09304): a fifth of all requests urgent, at rising rates.

Lengths are ShareGPT's means as published with vLLM (161 tokens in, 338 out), log-normal; the spread
is an assumption, since neither paper gives it. Answers are an eighth as long, so that a minute on
two cores holds enough of them.
"""

from benchmarks.load.arrivals import Poisson
from benchmarks.load.drive import Times
from benchmarks.load.lengths import LogNormal
from benchmarks.load.streams import OpenLoop
from benchmarks.record.record import BE, LS, Point
from benchmarks.scenarios.scenario import Scenario, Variant

LENGTHS = LogNormal(
    prompt_mean=161,
    prompt_sigma=1.2,
    output_mean=338 / 8,
    output_sigma=0.9,
    longest_prompt=1024,
    longest_output=256,
)
RATES = (1.0, 1.5, 2.0, 2.5)


def variant(rate: float) -> Variant:
    """All requests together come at ``rate`` a second."""
    stream = OpenLoop(((LS, 0.2), (BE, 0.8)), Poisson(rate), LENGTHS)
    return Variant((stream,), Point("requests/s", rate))


SCENARIO = Scenario(
    name="qllm",
    question="How much sooner are a random fifth of all requests answered, up to which rate?",
    variants=tuple(map(variant, RATES)),
    systems=("ls-alone", "fcfs", "priority-2048", "step", "strict"),
    # A fifth of few is fewer.
    times=Times(warm_up=10.0, seconds=75.0, drain=60.0),
    quick=(3,),
)
