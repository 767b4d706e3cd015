"""One system under one load: start its server, apply the load, sum up."""

import dataclasses
import shlex
from pathlib import Path
from typing import Any

from benchmarks.load import BE, LS, Load, Run, run_load
from benchmarks.progress import Progress
from benchmarks.report import summaries
from benchmarks.server import serve
from benchmarks.systems import System


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is the same for every system. Durations in seconds."""

    model: Path
    load: Load
    warm_up: float
    seconds: float
    drain: float
    # Prefix caching is off: the prompts share nothing, so it could only cost.
    common: tuple[str, ...] = ("--no-enable-prefix-caching", "--max-model-len", "4096")


def measure(
    name: str, system: System, plan: Plan, logs: Path, progress: Progress
) -> dict[str, Any]:
    """Run it; the result holds the numbers by class, the command line and the start-up time."""
    load = dataclasses.replace(
        plan.load,
        ls_rate=plan.load.ls_rate if system.ls else 0.0,
        be_clients=plan.load.be_clients if system.be else 0,
    )

    def tick(run: Run) -> None:
        count = {
            kind: sum(r.outcome == "ok" for r in run.records if r.kind == kind) for kind in (LS, BE)
        }
        progress.say(f"answered {count[LS]} LS, {count[BE]} BE requests")

    arguments = (*plan.common, *system.arguments)
    with serve(plan.model, arguments, logs / f"{name}.log", progress=progress) as server:
        run = run_load(
            server.url,
            load,
            priorities=system.priorities,
            warm_up=plan.warm_up,
            seconds=plan.seconds,
            drain=plan.drain,
            tick=tick,
        )
    return {
        "system": name,
        "about": system.about,
        "load": dataclasses.asdict(load),
        "command": shlex.join(server.command),
        "start_seconds": server.start_seconds,
        **summaries(run),
    }


def failures(result: dict[str, Any]) -> str:
    """What went wrong with requests, in one line; empty if nothing did."""
    errors = {**result[LS]["errors"], **result[BE]["errors"]}
    unanswered = result[LS]["outcomes"].get("cut off at the end", 0)
    parts = [f"{count} x {error}" for error, count in errors.items()]
    if unanswered:
        parts.append(f"{unanswered} LS requests were not answered in time")
    return "; ".join(parts)
