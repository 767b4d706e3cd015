# SPDX-License-Identifier: Apache-2.0
"""(7) Overload: urgent requests alone are more than the machine can serve."""

from benchmarks.load.arrivals import Poisson
from benchmarks.load.drive import Times
from benchmarks.load.lengths import Fixed
from benchmarks.load.streams import ClosedLoop, open_loop
from benchmarks.record.record import BE, LS, Point
from benchmarks.scenarios.scenario import Scenario, Variant

RATES = (2.0, 6.0)


def variant(rate: float) -> Variant:
    """Urgent requests at this rate beside the batch work of the mix."""
    streams = open_loop(LS, Poisson(rate), Fixed(64, 16)), ClosedLoop(BE, 4, Fixed(2000, 64))
    return Variant(streams, Point("LS requests/s", rate))


SCENARIO = Scenario(
    name="overload",
    question="What happens near, and far beyond, what urgent requests alone can be given?",
    variants=tuple(map(variant, RATES)),
    systems=("ls-alone", "fcfs", "priority-2048", "step", "strict"),
    times=Times(warm_up=5.0, seconds=45.0, drain=30.0),
    quick=(1,),
)
