# SPDX-License-Identifier: Apache-2.0
"""(5) vLLM issue 24365: one urgent request beside 30 that are being decoded.

There, a request that takes 8 s alone takes 16 s beside them although its priority is higher.
"""

from benchmarks.load.lengths import Fixed
from benchmarks.load.streams import ClosedLoop
from benchmarks.record.record import BE, LS
from benchmarks.scenarios.scenario import Scenario, Variant

SCENARIO = Scenario(
    name="decoding",
    question="How much longer does one urgent request take beside 30 that are being decoded?",
    variants=(
        Variant(
            (
                ClosedLoop(LS, 1, Fixed(64, 48), pause=2.0),
                ClosedLoop(BE, 30, Fixed(32, 256)),
            )
        ),
    ),
    systems=("ls-alone", "be-alone", "fcfs", "priority-2048", "strict-layer", "strict"),
)
