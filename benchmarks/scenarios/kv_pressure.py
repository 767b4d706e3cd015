# SPDX-License-Identifier: Apache-2.0
"""(8) Best-effort contexts of 4000 tokens fill the KV cache, and urgent bursts need all of it.

The urgent requests are short and many, as those of people are: they are let in for their prompts,
and need more blocks as they go on. That is where stock vLLM preempts; a request that waits for its
first block waits until somebody has finished.
"""

from benchmarks.load.arrivals import Bursts
from benchmarks.load.drive import Times
from benchmarks.load.lengths import Fixed
from benchmarks.load.streams import ClosedLoop, open_loop
from benchmarks.record.record import BE, LS
from benchmarks.scenarios.scenario import Scenario, Variant

# Of 128 tokens. Three best-effort requests fill 96 of them, and so do the 32 of a burst.
BLOCKS = 100

SCENARIO = Scenario(
    name="kv-pressure",
    question="What do best-effort requests lose when urgent bursts need all KV blocks?",
    variants=(
        Variant(
            (
                open_loop(LS, Bursts(size=32, every=24.0), Fixed(256, 32)),
                ClosedLoop(BE, 3, Fixed(3800, 200)),
            )
        ),
    ),
    times=Times(warm_up=24.0, seconds=96.0, drain=30.0),
    systems=("ls-alone", "be-alone", "priority-2048", "strict", "strict-spill"),
    arguments=("--block-size", "128", "--num-gpu-blocks-override", str(BLOCKS)),
)
