# SPDX-License-Identifier: Apache-2.0
"""What the plugin adds to one step when nobody urgent comes, on a model that costs little.

    python -m benchmarks.step_cost [--rounds N]

The share of a real step is far below what two servers can be told apart by on a noisy machine, so
it is measured where it is large: decode steps of four requests on a tiny model, in one process,
stock engine and engine with ``strict`` (whose steps are suspendable and pass every yield point) in
turn. The number is the difference of the medians of a step's duration.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.models.model import make

REQUESTS, TOKENS = 4, 400


def step_seconds(model: Path, policy: str | None) -> list[float]:
    """Durations of pure decode steps of ``REQUESTS`` best-effort requests."""
    from vllm import SamplingParams

    from vllm_qllm import LLM

    extra = {} if policy is None else {"priority_policy": policy}
    llm = LLM(
        str(model),
        dtype="float32",
        enforce_eager=True,
        max_model_len=1024,
        kv_cache_memory_bytes=2**28,
        scheduling_policy="priority",
        **extra,
    )
    engine = llm.llm_engine
    params = SamplingParams(max_tokens=TOKENS, temperature=0.0, ignore_eos=True)
    for n in range(REQUESTS):
        prompt = {"prompt_token_ids": [n + 1, 2, 3, 4]}
        engine.add_request(f"r{n}", prompt, params, priority=9)
    durations = []
    while engine.has_unfinished_requests():
        began = time.perf_counter()
        engine.step()
        durations.append(time.perf_counter() - began)
    engine.engine_core.shutdown()
    return durations[20:]  # the first ones warm up


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step_cost", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    costs = []
    with tempfile.TemporaryDirectory() as folder:
        model = make("tiny-mixtral", Path(folder) / "tiny-mixtral")
        for _ in range(rounds):
            stock = statistics.median(step_seconds(model, None))
            strict = statistics.median(step_seconds(model, "strict"))
            costs.append((strict - stock) * 1e6)
            print(f"stock {stock * 1e6:.0f} us, strict {strict * 1e6:.0f} us a step", flush=True)
    spread = f"{min(costs):.0f} to {max(costs):.0f}"
    print(f"strict adds {statistics.median(costs):.0f} us a step ({spread} over {rounds} rounds)")


if __name__ == "__main__":
    main()
