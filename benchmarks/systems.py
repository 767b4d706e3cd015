"""What is compared, as data. To add a system, add an entry."""

from dataclasses import dataclass


@dataclass(frozen=True)
class System:
    """A way to run the server, and which of the two loads it gets."""

    about: str
    arguments: tuple[str, ...]
    ls: bool = True
    be: bool = True
    # A server without priority scheduling refuses requests that name a priority.
    priorities: bool = True


def budget(tokens: int) -> tuple[str, str]:
    """At most this many tokens a step."""
    return "--max-num-batched-tokens", str(tokens)


def stock_priority(tokens: int) -> tuple[str, ...]:
    """vLLM's own priority scheduling."""
    return "--scheduling-policy", "priority", *budget(tokens)


def qllm(policy: str) -> tuple[str, ...]:
    """This plugin."""
    return "--priority-policy", policy, *budget(2048)


SYSTEMS = {
    "ls-alone": System("stock vLLM, LS only", budget(2048), be=False, priorities=False),
    "be-alone": System("stock vLLM, BE only", budget(2048), ls=False, priorities=False),
    "be-alone-strict": System("plugin on, BE only", qllm("strict"), ls=False),
    "fcfs": System("stock vLLM, first come first served", budget(2048), priorities=False),
    "priority-2048": System("stock vLLM priority, 2048-token budget", stock_priority(2048)),
    "priority-512": System("stock vLLM priority, 512-token budget", stock_priority(512)),
    "priority-256": System("stock vLLM priority, 256-token budget", stock_priority(256)),
    "step": System("plugin, scheduling only", qllm("step")),
    "strict": System("plugin, preempting inside the step", qllm("strict")),
    "strict-layer": System(
        "strict with layer checkpoints, vLLM's own experts",
        (*qllm("strict"), "--priority-config", '{"checkpoints": "layer"}'),
    ),
    # What throughput costs: urgent decodes may take longer, best-effort ones come along.
    "strict-ride": System(
        "strict with ride_slowdown 2.5",
        (*qllm("strict"), "--priority-config", '{"ride_slowdown": 2.5}'),
    ),
}
