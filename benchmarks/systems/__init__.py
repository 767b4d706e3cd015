# SPDX-License-Identifier: Apache-2.0
"""What is compared, as data. To add a system, add an entry."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.record.record import BE, KINDS, LS

# vLLM and this plugin: lower is more urgent. A server that sees it otherwise gets other numbers.
LOWER_FIRST = {LS: 0, BE: 10}


@dataclass(frozen=True)
class System:
    """A way to run the server, and which of the loads it gets.

    Attributes:
        about: in words.
        arguments: of ``vllm serve``, beside those of the scenario.
        kinds: the classes whose requests are sent.
        priorities: class to priority; None for a server without priority scheduling, which refuses
            requests that name one.
        ours: whether the plugin is on.
    """

    about: str
    arguments: tuple[str, ...]
    kinds: tuple[str, ...] = KINDS
    priorities: Mapping[str, int] | None = None
    ours: bool = False


def budget(tokens: int) -> tuple[str, str]:
    """At most this many tokens a step."""
    return "--max-num-batched-tokens", str(tokens)


def stock(about: str, *arguments: str, tokens: int = 2048) -> System:
    """vLLM's own priority scheduling."""
    flags = ("--scheduling-policy", "priority", *budget(tokens), *arguments)
    return System(f"stock vLLM priority, {about}", flags, priorities=LOWER_FIRST)


def qllm(
    about: str,
    policy: str,
    tokens: int = 2048,
    kinds: tuple[str, ...] = KINDS,
    **config: object,
) -> System:
    """This plugin; ``config`` is its ``--priority-config``, beside a timeline for exact response
    times."""
    keep = json.dumps({"timeline": True} | config)
    flags = ("--priority-policy", policy, *budget(tokens), "--priority-config", keep)
    return System(f"plugin, {about}", flags, kinds, LOWER_FIRST, ours=True)


def shared(max_wait_ms: float, slice_ms: float) -> list[dict[str, object]]:
    """The usual classes, where held-back BE runs for a slice after each wait."""
    return [
        {"name": "latency_sensitive", "max_priority": 0},
        {"name": "best_effort", "max_wait_ms": max_wait_ms, "slice_ms": slice_ms},
    ]


SYSTEMS = {
    # These three differ in load alone: one server serves them in turn.
    "ls-alone": System("stock vLLM, LS only", budget(2048), (LS,)),
    "be-alone": System("stock vLLM, BE only", budget(2048), (BE,)),
    "fcfs": System("stock vLLM, first come first served", budget(2048)),
    "priority-8192": stock("8192-token budget", tokens=8192),
    "priority-2048": stock("2048-token budget"),
    "priority-512": stock("512-token budget", tokens=512),
    "priority-256": stock("256-token budget", tokens=256),
    # What vLLM advises against long prompts: no more of one than this in a step.
    "priority-threshold": stock(
        "2048-token budget, 256 of one prompt", "--long-prefill-token-threshold", "256"
    ),
    "step": qllm("scheduling only", "step"),
    "strict-layer": qllm(
        "strict with yield points at layers, vLLM's own experts", "strict", yield_points="layer"
    ),
    "strict": qllm("preempting inside the step", "strict"),
    # LS alone with our kernel: against it, strict shows what the scheduler does and nothing else.
    "ls-alone-strict": qllm("strict, LS only", "strict", kinds=(LS,)),
    "be-alone-strict": qllm("strict, BE only", "strict", kinds=(BE,)),
    "strict-8192": qllm("preempting inside the step, 8192-token budget", "strict", tokens=8192),
    "strict-spill": qllm("KV of preempted requests on the host", "strict", spill_bytes=2 << 30),
    # A fifth of the time for work that is held back, in slices of ten milliseconds.
    "strict-share": qllm("strict, 10 ms of BE after 40 ms of LS", "strict", classes=shared(40, 10)),
    # What throughput costs: urgent decodes may take longer, best-effort ones come along.
    "strict-ride": qllm("strict with ride_slowdown 2.5", "strict", ride_slowdown=2.5),
}


def find(name: str) -> System:
    """The system of this name. Raises ValueError."""
    if name not in SYSTEMS:
        raise ValueError(f"no system named {name!r}; there are: {', '.join(SYSTEMS)}")
    return SYSTEMS[name]
