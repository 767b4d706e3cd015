# SPDX-License-Identifier: Apache-2.0
"""Urgent requests beside long prefills on one GPU, under several systems.

    python -m benchmarks.gpu.mix --systems fcfs priority step layer expert [--model NAME]
        [--layers N] [--seconds S] [--rounds N] [--eager] [--out FILE]

Every system is a process with an engine of its own, through vLLM's ``AsyncLLM``: the real engine
process and its IO thread, without HTTP. All start at the same time and hold their share of the
GPU's memory; then they are measured one after another while the others are idle. Weights are
random.

LS: Poisson, 128 tokens in, 16 out. BE: closed loop, 8000 tokens in, 32 out.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu import shapes
from benchmarks.gpu.load import Load, spread

POLICY = {"timeline": True}
SYSTEMS: dict[str, dict[str, Any]] = {
    "fcfs": {},
    # With the model runner and without the asynchronous scheduling that a policy needs.
    "fcfs-v1": {"async_scheduling": False},
    "priority": {"scheduling_policy": "priority"},
    "priority-2048": {"scheduling_policy": "priority", "max_num_batched_tokens": 2048},
    "priority-512": {"scheduling_policy": "priority", "max_num_batched_tokens": 512},
    "step": {"priority_config": {"policy": "step", **POLICY}},
    "layer": {"priority_config": {"policy": "strict", "yield_points": "layer", **POLICY}},
    "layer-1": {
        "priority_config": {"policy": "strict", "yield_points": "layer", "run_ahead": 1, **POLICY}
    },
    "expert": {"priority_config": {"policy": "strict", **POLICY}},
    "expert-1": {"priority_config": {"policy": "strict", "run_ahead": 1, **POLICY}},
    "expert-4": {"priority_config": {"policy": "strict", "run_ahead": 4, **POLICY}},
    "unbounded": {"priority_config": {"policy": "strict", "run_ahead": 1000, **POLICY}},
}
COMMON: dict[str, Any] = {
    "load_format": "dummy",
    "max_model_len": 8192,
    "max_num_batched_tokens": 8192,
    "enable_prefix_caching": False,
    "max_num_seqs": 64,
    "gpu_memory_utilization": 0.1,
    "disable_log_stats": True,
}
GRAPHS = {"cudagraph_capture_sizes": [1, 2, 4, 8, 16, 32, 64]}


def _responses(seconds: float) -> dict[str, Any]:
    """What the timeline says of the last seconds: response times, suspensions; {} without one."""
    from benchmarks.measurement.responses import response_times
    from vllm_qllm.metrics.location import prepared
    from vllm_qllm.timeline.document import document

    place = prepared()
    if place is None or not place.timeline:
        return {}
    found = document(place.prefix, seconds)
    events = [event for engine in found["engines"] for event in engine["events"]]
    return {
        "response_ms": {k: spread(v) for k, v in response_times(found, seconds).items()},
        "suspensions": sum(event["kind"] == "step_suspended" for event in events),
    }


async def _serve(system: str, model: str, kv_bytes: int, eager: bool) -> None:
    """One system: answers each line of its standard input, a load, with a line of JSON."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.plugins import load_general_plugins
    from vllm.v1.engine.async_llm import AsyncLLM

    load_general_plugins()
    args = {"model": model, "kv_cache_memory_bytes": kv_bytes, **COMMON, **SYSTEMS[system]}
    args |= {"enforce_eager": True} if eager else {"compilation_config": dict(GRAPHS)}
    engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**args))
    loop = asyncio.get_running_loop()
    await Load(engine, 2.0, 0).run(ls=True, be=True)  # warm-up: kernels are compiled
    print("@ready", flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        asked = json.loads(line)
        found = await Load(engine, asked["seconds"], asked["seed"]).run(
            ls=asked["ls"], be=asked["be"]
        )
        found |= _responses(found["seconds"])
        print("@" + json.dumps(found), flush=True)
    engine.shutdown()


class System:
    """A process that serves one system."""

    def __init__(self, name: str, model: Path, kv_bytes: int, eager: bool, logs: Path) -> None:
        self.name = name
        self.log = logs / f"{name}.log"
        command = [
            sys.executable,
            "-m",
            "benchmarks.gpu.mix",
            "--serve",
            name,
            str(model),
            str(kv_bytes),
        ]
        self._process = subprocess.Popen(
            [*command, *(["--eager"] if eager else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log.open("w"),
            text=True,
            env=os.environ | ({"VLLM_USE_V2_MODEL_RUNNER": "0"} if name == "fcfs-v1" else {}),
        )

    def answer(self) -> str:
        """Its next answer.

        Raises:
            RuntimeError: it has ended; the end of its log.
        """
        assert self._process.stdout is not None
        with self.log.open("a") as log:
            for line in self._process.stdout:
                if line.startswith("@"):
                    return line[1:].strip()
                log.write(line)
        raise RuntimeError(f"{self.name} ended:\n{self.log.read_text()[-3000:]}")

    def measure(self, **asked: Any) -> dict[str, Any]:
        """Load it, and return what it measured."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return dict(json.loads(self.answer()))

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()


def main() -> None:
    """Start the systems, measure them in turns, print and write what came of it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.mix", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=["fcfs", "expert"])
    parser.add_argument("--model", choices=shapes.MODELS, default="mixtral-8x7b")
    parser.add_argument("--layers", type=int, default=None, help="instead of all of the model's")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--eager", action="store_true", help="neither compile nor capture graphs")
    parser.add_argument("--kv-bytes", type=int, default=12 << 30, help="of each system")
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument(
        "--serve", nargs=3, metavar=("SYSTEM", "FOLDER", "BYTES"), help=argparse.SUPPRESS
    )
    options = parser.parse_args()
    if options.serve:
        system, folder, kv_bytes = options.serve
        asyncio.run(_serve(system, folder, int(kv_bytes), options.eager))
        return
    out: Path | None = options.out
    logs = Path(tempfile.mkdtemp()) if out is None else out.parent
    model = shapes.write(options.model, Path(tempfile.mkdtemp()) / options.model, options.layers)
    start = time.perf_counter()
    systems = [
        System(name, model, options.kv_bytes, options.eager, logs) for name in options.systems
    ]
    results: list[dict[str, Any]] = []
    try:
        for system in list(systems):
            try:
                assert system.answer() == "ready"
                print(
                    f"{system.name} is ready after {time.perf_counter() - start:.0f} s", flush=True
                )
            except RuntimeError as error:
                print(error, flush=True)
                systems.remove(system)
        for seed in range(options.rounds):
            for system in systems:
                for load in (
                    {"ls": True, "be": False},
                    {"ls": False, "be": True},
                    {"ls": True, "be": True},
                ):
                    found = system.measure(seconds=options.seconds, seed=seed, **load)
                    results.append({"system": system.name, "round": seed, **load, **found})
                    print(json.dumps(_rounded(results[-1])), flush=True)
    finally:
        for system in systems:
            system.close()
        if out is not None:
            out.write_text(json.dumps({"options": sys.argv[1:], "runs": results}, indent=1) + "\n")


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _rounded(of) for key, of in value.items()}
    return value


if __name__ == "__main__":
    main()
