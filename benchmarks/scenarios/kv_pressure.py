"""(8) Best-effort contexts of 4000 tokens fill the KV cache, and urgent bursts need it."""

from benchmarks.load.arrivals import Gamma
from benchmarks.load.drive import Times
from benchmarks.load.lengths import Fixed
from benchmarks.load.streams import ClosedLoop, open_loop
from benchmarks.record import BE, LS
from benchmarks.scenarios.scenario import Scenario, Variant

# Blocks of 128 tokens: three of the best-effort requests, or one prompt as long as the model takes.
BLOCKS = 100

SCENARIO = Scenario(
    name="kv-pressure",
    question="What do best-effort requests lose when urgent bursts take their KV blocks?",
    variants=(
        Variant(
            (
                open_loop(LS, Gamma(0.4, cv=3.0), Fixed(2000, 8)),
                ClosedLoop(BE, 3, Fixed(3600, 400)),
            )
        ),
    ),
    times=Times(warm_up=20.0, seconds=120.0, drain=60.0),
    systems=("ls-alone", "be-alone", "priority-2048", "strict", "strict-spill"),
    arguments=("--block-size", "128", "--num-gpu-blocks-override", str(BLOCKS)),
)
