# SPDX-License-Identifier: Apache-2.0
"""(3) ConServe's evaluation (arXiv 2410.01228): bursts of online requests, long offline prompts.

Its ablation is the systems ``step`` (scheduling alone), ``strict-layer`` and ``strict``. Online
arrivals are a gamma process whose gaps vary by three times their mean.
"""

from benchmarks.load.arrivals import Gamma
from benchmarks.load.lengths import Fixed
from benchmarks.load.streams import ClosedLoop, open_loop
from benchmarks.record.record import BE, LS
from benchmarks.scenarios.scenario import Scenario, Variant

SCENARIO = Scenario(
    name="conserve",
    question="What do scheduling, and yield points by layer and by expert, each add under bursts?",
    variants=(
        Variant(
            (
                open_loop(LS, Gamma(0.6, cv=3.0), Fixed(128, 16)),
                ClosedLoop(BE, 4, Fixed(3500, 32)),
            )
        ),
    ),
    systems=(
        *("ls-alone", "be-alone", "fcfs", "priority-2048", "priority-512"),
        *("step", "strict-layer", "strict"),
    ),
)
