# SPDX-License-Identifier: Apache-2.0
"""(6) One prompt of 8000 tokens after the other, and a stream of short urgent requests."""

from benchmarks.load.arrivals import Poisson
from benchmarks.load.lengths import Fixed
from benchmarks.load.streams import ClosedLoop, open_loop
from benchmarks.record.record import BE, LS
from benchmarks.scenarios.scenario import Scenario, Variant

SCENARIO = Scenario(
    name="long-prompts",
    question="What do short urgent requests wait for beside prompts of 8000 tokens?",
    variants=(
        Variant(
            (
                open_loop(LS, Poisson(0.8), Fixed(64, 8)),
                ClosedLoop(BE, 1, Fixed(8000, 16)),
            )
        ),
    ),
    systems=(
        *("ls-alone", "fcfs", "priority-8192", "priority-2048", "priority-512"),
        *("priority-threshold", "strict", "strict-8192"),
    ),
)
