# SPDX-License-Identifier: Apache-2.0
"""The scheduler's side: which blocks of which requests are on the host, and which should be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from vllm.utils.math_utils import cdiv
from vllm.v1.request import Request

from vllm_qllm.kv.copies import Copies, CopyReport
from vllm_qllm.kv.costs import Costs
from vllm_qllm.kv.host_slots import HostSlots


@dataclass
class Context:
    """What the host holds of one request.

    Attributes:
        slots: of its first blocks, in order. Those of a running request are copied ahead; only
            full blocks are, which do not change any more.
        tokens: that can be restored, 0 while the request holds its blocks itself.
        busy: whether the step that is put together copies to its slots or from them.
    """

    slots: list[int] = field(default_factory=list)
    tokens: int = 0
    busy: bool = False


class Spill:
    """Keeps the KV of preempted requests on the host.

    A request that is about to lose its blocks is *spilled* when copying them back promises to be
    faster than computing them again. The copies out run at the start of the step that takes the
    blocks, before it computes anything; those back in the step that resumes the request, whose
    layers may each wait for their own part. Blocks of less urgent requests are copied *ahead*, a
    few in each of their own steps, so that a more urgent step that takes them has little to wait
    for.

    Args:
        slots: host slots, each of one KV block.
        block_size: tokens of a KV block.
        block_bytes: bytes of a KV block, in all layers.
        by_layer: whether layers wait for their own part of what is restored.
    """

    def __init__(
        self, slots: int, block_size: int, block_bytes: int, *, by_layer: bool = False
    ) -> None:
        self.slots = HostSlots(slots)
        self.costs = Costs()
        self._block_size = block_size
        self._block_bytes = block_bytes
        self._by_layer = by_layer
        self._contexts: dict[str, Context] = {}
        self._copies = Copies()
        # In steps that are not completed: who restores a block, and whose slots are still read.
        self._restoring: dict[int, str] = {}
        self._reading: set[str] = set()

    def tokens(self, request_id: str) -> int:
        """Tokens of a waiting request that can be restored."""
        context = self._contexts.get(request_id)
        return context.tokens if context else 0

    def restore_seconds(self, request: Request, shared: int = 0) -> float:
        """What a request pays for losing its blocks, the cheaper way.

        Args:
            request: with the tokens of all its completed steps computed.
            shared: how many of its first blocks others hold, too: they stay cached.
        """
        return min(self._ways(request, shared))

    # -- offload ---------------------------------------------------------------------------------

    def copy_ahead(
        self, request: Request, blocks: Sequence[int], limit: int, shared: int = 0
    ) -> int:
        """Copy up to ``limit`` full blocks of a running request; returns how many.

        Args:
            request: as above.
            blocks: its KV blocks, in order.
            limit: of blocks.
            shared: as above.
        """
        full = request.num_computed_tokens // self._block_size
        if not self._can_restore(request) or not self._pays(request, shared):
            return 0
        context = self._contexts.setdefault(request.request_id, Context())
        return self._extend(context, blocks, min(full, len(context.slots) + limit))

    def preempt(self, request: Request, blocks: Sequence[int], shared: int = 0) -> int:
        """Keep the first tokens of a request that is about to lose ``blocks``.

        Returns:
            How many of them can be restored: 0 if that does not pay, and fewer than it has
            computed when there is too little room.
        """
        computed = request.num_computed_tokens
        possible = self._can_restore(request)
        if not possible or not self._pays(request, shared):
            if possible:
                self.costs.fade()
            self.forget(request.request_id)
            return 0
        context = self._contexts.setdefault(request.request_id, Context())
        self._make_room(self._missing(request), request.request_id)
        self._extend(context, blocks, cdiv(computed, self._block_size))
        context.tokens = min(computed, len(context.slots) * self._block_size)
        if not context.tokens:
            self.forget(request.request_id)
        return context.tokens

    def _can_restore(self, request: Request) -> bool:
        # Prompt log-probabilities are computed with the prompt, which has to be computed again.
        return bool(request.num_computed_tokens) and not request.skip_reading_prefix_cache

    def _missing(self, request: Request) -> int:
        """Blocks of a request that are not on the host."""
        context = self._contexts.get(request.request_id, Context())
        return max(0, cdiv(request.num_computed_tokens, self._block_size) - len(context.slots))

    def _pays(self, request: Request, shared: int) -> bool:
        """Whether copying is faster than computing again, should the request lose its blocks."""
        copying, computing = self._ways(request, shared)
        return copying < computing

    def _ways(self, request: Request, shared: int) -> tuple[float, float]:
        """Seconds to copy what is not ``shared`` out and back, and to compute it again."""
        tokens = request.num_computed_tokens
        back = max(0, cdiv(tokens, self._block_size) - shared)
        again = max(0, tokens - shared * self._block_size)
        return self.costs.restore(self._missing(request), back), self.costs.recompute(again)

    def _extend(self, context: Context, blocks: Sequence[int], end: int) -> int:
        before = len(context.slots)
        for block in blocks[before:end]:
            slot = self.slots.take()
            if slot is None:
                break
            context.slots.append(slot)
            context.busy = True
            self._copies.offloads.append((block, slot))
        return len(context.slots) - before

    def _make_room(self, slots: int, request_id: str) -> None:
        """Give up what was copied ahead of others, who hold their blocks, to spill a request."""
        missing = slots - self.slots.free
        for other, context in self._contexts.items():
            if missing <= 0:
                return
            if other == request_id or other in self._reading:
                continue
            if not context.tokens and not context.busy:
                missing -= len(context.slots)
                self.slots.give_back_at_once(context.slots)
                context.slots.clear()

    # -- restore --------------------------------------------------------------------------------

    def admit(self, request_id: str, blocks: Sequence[int], start: int, tokens: int) -> None:
        """Restore ``tokens`` from ``start`` on, or none, of a request that got ``blocks``.

        ``start`` is where a block begins.
        """
        context = self._contexts.get(request_id)
        if context is None or not context.tokens:
            return
        if tokens:
            first, last = start // self._block_size, cdiv(start + tokens, self._block_size)
            full = (start + tokens) // self._block_size
            pairs = list(zip(context.slots[first:last], blocks[first:last], strict=True))
            self._copies.full += pairs[: full - first]
            self._copies.partial += pairs[full - first :]
            context.busy = True
            if self._by_layer and full > first:
                self._reading.add(request_id)
            self._restoring.update(dict.fromkeys(blocks[first:last], request_id))
        # It holds its blocks again. What is full on the host stays as copied ahead.
        full = context.tokens // self._block_size
        self.slots.give_back(context.slots[full:])
        del context.slots[full:]
        context.tokens = 0

    def forget(self, request_id: str) -> None:
        """Give back all that the host holds of a request."""
        context = self._contexts.pop(request_id, None)
        if context is not None:
            self.slots.give_back(context.slots)

    def forget_all(self) -> None:
        """Give back everything."""
        for request_id in list(self._contexts):
            self.forget(request_id)

    def held(self) -> dict[str, int]:
        """Bytes on the host by request."""
        return {i: len(c.slots) * self._block_bytes for i, c in self._contexts.items()}

    # -- steps -------------------------------------------------------------------------------

    def take_copies(self) -> Copies:
        """The copies of the step that is put together now."""
        copies, self._copies = self._copies, Copies()
        for context in self._contexts.values():
            context.busy = False
        self.slots.step_is_complete()
        return copies

    def completed(self, report: CopyReport | None, failed: Iterable[int]) -> None:
        """Learn from a completed step; the blocks that it could not restore are ``failed``."""
        if report is not None:
            self.costs.copied(report)
        for block in failed:
            if request_id := self._restoring.get(block):
                self.forget(request_id)

    def restored(self, request_ids: Iterable[str]) -> None:
        """A step of these requests has completed."""
        ids = set(request_ids)
        done = [block for block, request_id in self._restoring.items() if request_id in ids]
        for block in done:
            del self._restoring[block]
        self._reading -= ids
