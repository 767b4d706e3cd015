# SPDX-License-Identifier: Apache-2.0
"""Programs: conversations and agents whose next turn needs the KV of the last one.

The idea is that of Continuum (arXiv 2511.02230): the KV of a finished turn is kept for a while, so
that the next turn, which begins with it, finds it; and turns can be ordered by when their program
began, so that one that is half way does not queue behind others that have just come.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from hashlib import sha256

from vllm.v1.core.kv_cache_manager import KVCacheManager
from vllm.v1.core.kv_cache_utils import KVCacheBlock
from vllm.v1.request import Request

from vllm_qllm.config import PriorityConfig
from vllm_qllm.engine.requests import Requests
from vllm_qllm.policy import KeepsTurns, Policy, TurnView
from vllm_qllm.program_id import program_id

# Programs whose beginning is remembered, the latest to be seen.
REMEMBERED = 100_000
# How many seconds earlier than it came a turn may be placed. Without a bound a program that never
# ends would be first for good; with it, what has waited for so long goes before all later turns.
# It covers the pauses between turns; a longer queue is one of overload, where who came first should
# be served first.
HEAD_START = 60.0
# Turns without a program are kept under their own id behind this; programs are hexadecimal.
ALONE = "alone-"


def program_of(request: Request, level: int) -> str | None:
    """The program that a request says it belongs to, as a key of fixed size.

    Programs of other classes and of other cache salts are others, whatever their name, and so are
    those of other tenants, whom the API server puts into it: nobody can touch what belongs to
    those who share nothing with him.
    """
    name = program_id(request.sampling_params)
    if name is None:
        return None
    return sha256(repr((level, request.cache_salt, name)).encode()).hexdigest()


@dataclass
class Kept:
    """Blocks of a finished turn.

    Attributes:
        level: class of the turn.
        until: when they are given back at the latest, ``time.monotonic()`` seconds.
        blocks: cached prefix blocks, in order; they are held as if by a request.
    """

    level: int
    until: float
    blocks: list[KVCacheBlock]


class Programs:
    """Keeps what finished turns have computed, for ``program_ttl_ms`` or as the policy says.

    Blocks that are kept are the first to go when a more urgent request needs room, and go before
    anybody else would have to wait for ever.

    Args:
        config: ``program_ttl_ms`` and ``order``.
        policy: which may say for how long a turn is kept.
        requests: of the scheduler.
        manager: of its KV blocks.
    """

    def __init__(
        self, config: PriorityConfig, policy: Policy, requests: Requests, manager: KVCacheManager
    ) -> None:
        self._policy_name = config.policy
        self._requests = requests
        self._manager = manager
        self._pool = manager.block_pool
        self._ttl = config.program_ttl_ms / 1000.0
        self._expecting = policy if isinstance(policy, KeepsTurns) else None
        self._by_program = config.order == "program"
        self._began: dict[str, float] = {}
        self._kept: dict[str, Kept] = {}

    @property
    def kept_blocks(self) -> int:
        """KV blocks that wait for a next turn; one that two programs share counts twice."""
        return sum(len(kept.blocks) for kept in self._kept.values())

    def arrived(self, request: Request) -> None:
        """Order a turn by the beginning of its program, if that is asked for."""
        program = program_of(request, self._requests.level(request))
        if program is None or not self._by_program:
            return
        began = self._began.pop(program, request.arrival_time)
        self._began[program] = began
        request.arrival_time = max(began, request.arrival_time - HEAD_START)
        while len(self._began) > REMEMBERED:
            del self._began[next(iter(self._began))]

    def finished(self, request: Request, now: float) -> None:
        """Keep the blocks of a turn that has ended and still holds them."""
        # vLLM's front end ends a turn at a stop string by aborting it, as a client that goes away.
        if not request.num_output_tokens:
            return
        level = self._requests.level(request)
        program = program_of(request, level)
        seconds = self._seconds(request, level, program is not None)
        if not seconds:
            return
        groups = self._manager.get_blocks(request.request_id).blocks
        # Nobody can find a block without a hash again.
        blocks = [b for group in groups for b in group if b.block_hash is not None]
        if blocks:
            self._pool.touch(blocks)
        if program is not None:
            self.release(program)
        else:
            self._release_beginnings(blocks)
        if blocks:
            key = program or f"{ALONE}{request.request_id}"
            self._kept[key] = Kept(level, now + seconds, blocks)

    def _seconds(self, request: Request, level: int, named: bool) -> float:
        """For how long the KV of a turn is kept, by its program or by the policy.

        Raises:
            RuntimeError: the policy's answer is no time.
        """
        ttl = self._ttl if named else 0.0
        if self._expecting is None:
            return ttl
        prompt, output = request.num_prompt_tokens, request.num_output_tokens
        answer = self._expecting.keep_turn(TurnView(level, named, prompt, output, ttl))
        if not isinstance(answer, (int, float)) or not 0 <= answer < math.inf:
            raise RuntimeError(
                f"priority policy {self._policy_name!r} keeps a turn for {answer!r}; allowed: "
                "seconds from 0 on"
            )
        return float(answer)

    def _release_beginnings(self, blocks: list[KVCacheBlock]) -> None:
        """Give back what is kept of earlier turns without a program that ``blocks`` go on from."""
        ids = {block.block_id for block in blocks}
        for key in [k for k, kept in self._kept.items() if k.startswith(ALONE)]:
            if self._kept[key].blocks[-1].block_id in ids:
                self.release(key)

    def expire(self, now: float) -> None:
        """Give back what was kept long enough."""
        for program in [p for p, kept in self._kept.items() if kept.until <= now]:
            self.release(program)

    def yielding(self, level: int, at_once: bool) -> list[str]:
        """Programs whose blocks a request of class ``level`` may have, the first ones to go first.

        Those of less urgent classes, the oldest first; then the others, if ``at_once``: when it
        has no room to go on, or nobody whose end it could wait for.
        """
        less = [p for p, kept in self._kept.items() if kept.level > level]
        return less + [p for p, kept in self._kept.items() if at_once and kept.level <= level]

    def blocks(self, programs: list[str]) -> list[int]:
        """KV blocks that these keep, once for each of them."""
        return [b.block_id for program in programs for b in self._kept[program].blocks]

    def release_all(self) -> None:
        """Give everything back."""
        for program in list(self._kept):
            self.release(program)

    def release(self, program: str) -> None:
        """Give back what is kept for a program, if anything."""
        kept = self._kept.pop(program, None)
        if kept is not None:
            # The end of a prefix goes first: what remains can still be found.
            self._pool.free_blocks(reversed(kept.blocks))
