# SPDX-License-Identifier: Apache-2.0
"""What a simulated replica is: the options of ``vllm serve`` that decide what goes into a step."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
from collections.abc import Sequence

from vllm_qllm.capacity.errors import CapacityError, check
from vllm_qllm.config import PriorityConfig

STOCK = ("fcfs", "priority")


@dataclasses.dataclass(frozen=True)
class Server:
    """One replica's options.

    Attributes:
        scheduling: ``fcfs`` or ``priority``, vLLM's own; or ``classes``, this plugin.
        priority: the classes, and with ``classes`` also policy and bounds.
        token_budget: ``--max-num-batched-tokens``, the most tokens a step may hold.
        slots: ``--max-num-seqs``, the most requests a step may hold.
        long_prefill_threshold: ``--long-prefill-token-threshold``; 0 for none.
        kv_blocks: KV blocks that requests can use.
        block_size: tokens a block.
        max_model_len: the longest prompt and output together, in tokens.
    """

    scheduling: str = "classes"
    priority: PriorityConfig = PriorityConfig()  # noqa: RUF009 (frozen)
    token_budget: int = 2048
    slots: int = 128
    long_prefill_threshold: int = 0
    kv_blocks: int = 8192
    block_size: int = 128
    max_model_len: int = 4096

    def __post_init__(self) -> None:
        check(
            self.scheduling in (*STOCK, "classes"),
            "scheduling",
            self.scheduling,
            "fcfs, priority or classes",
        )
        for name in ("token_budget", "slots", "kv_blocks", "block_size", "max_model_len"):
            value = getattr(self, name)
            check(isinstance(value, int) and value >= 1, name, value, "an integer of at least 1")
        check(
            self.long_prefill_threshold >= 0,
            "long_prefill_threshold",
            self.long_prefill_threshold,
            "0 for none, or a number of tokens",
        )
        check(
            self.slots <= self.token_budget,
            "slots",
            self.slots,
            f"at most the token budget, {self.token_budget}",
        )

    @property
    def class_names(self) -> list[str]:
        """Most urgent first."""
        return [c.name for c in self.priority.classes]

    @property
    def label(self) -> str:
        """A short name for tables."""
        name = self.priority.policy if self.scheduling == "classes" else f"vLLM {self.scheduling}"
        return f"{name}, {self.token_budget}-token budget"


def with_policy(server: Server, policy: str, config: str | None = None) -> Server:
    """``server`` under ``policy``: ``fcfs``, ``priority``, or what ``--priority-policy`` takes.

    Args:
        config: what ``--priority-config`` takes; its classes count for stock policies, too.

    Raises:
        ConfigError: the configuration cannot be used.
    """
    if policy in STOCK:
        priority = PriorityConfig.load(config, None if config else "strict")
        return dataclasses.replace(server, scheduling=policy, priority=priority)
    priority = PriorityConfig.load(config, policy)
    return dataclasses.replace(server, scheduling="classes", priority=priority)


def from_command(command: str | Sequence[str], server: Server) -> Server:
    """``server`` with what a ``vllm serve`` command line says; what it leaves out stays.

    Raises:
        CapacityError: a number that is none.
        ConfigError: a priority configuration that cannot be used.
    """
    words = shlex.split(command) if isinstance(command, str) else list(command)
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--max-num-batched-tokens", type=int, default=server.token_budget)
    parser.add_argument("--max-num-seqs", type=int, default=server.slots)
    parser.add_argument("--max-model-len", type=int, default=server.max_model_len)
    parser.add_argument("--long-prefill-token-threshold", type=int, default=0)
    parser.add_argument("--scheduling-policy", default="fcfs")
    parser.add_argument("--priority-policy")
    parser.add_argument("--priority-config")
    try:
        given, _ = parser.parse_known_args(words)
    except argparse.ArgumentError as error:
        raise CapacityError(f"capacity: the command line has {error}") from error
    changed = dataclasses.replace(
        server,
        token_budget=given.max_num_batched_tokens,
        slots=min(given.max_num_seqs, given.max_num_batched_tokens),
        max_model_len=given.max_model_len,
        long_prefill_threshold=given.long_prefill_token_threshold,
    )
    if given.priority_policy or given.priority_config:
        priority = PriorityConfig.load(given.priority_config, given.priority_policy)
        return dataclasses.replace(changed, scheduling="classes", priority=priority)
    return dataclasses.replace(changed, scheduling=given.scheduling_policy)
