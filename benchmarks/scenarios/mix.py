# SPDX-License-Identifier: Apache-2.0
"""(1) The mix: short urgent questions beside long batch prompts, under every system."""

from benchmarks.load.arrivals import Poisson
from benchmarks.load.lengths import Fixed
from benchmarks.load.streams import ClosedLoop, open_loop
from benchmarks.record.record import BE, LS
from benchmarks.scenarios.scenario import Scenario, Variant

MIX = (
    open_loop(LS, Poisson(0.5), Fixed(64, 16)),
    ClosedLoop(BE, 4, Fixed(2000, 64)),
)

SCENARIO = Scenario(
    name="mix",
    question="What do urgent requests wait for beside batch work, under every system?",
    variants=(Variant(MIX),),
    systems=(
        *("ls-alone", "be-alone", "fcfs"),
        *("priority-2048", "priority-512", "priority-256", "priority-threshold"),
        *(
            "step",
            "strict-layer",
            "strict",
            "ls-alone-strict",
            "be-alone-strict",
            "strict-share",
            "strict-ride",
        ),
    ),
)
