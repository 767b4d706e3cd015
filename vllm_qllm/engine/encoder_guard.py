# SPDX-License-Identifier: Apache-2.0
"""The encoder cache under classes: held-back requests do not keep it from more urgent ones."""

from __future__ import annotations

from vllm.v1.core.encoder_cache_manager import EncoderCacheManager
from vllm.v1.request import Request

from vllm_qllm.engine.requests import Requests


class EncoderGuard:
    """Stands in front of ``EncoderCacheManager.can_allocate`` of one scheduler.

    An encoder-decoder model needs no guard: it keeps nothing beyond the step that encodes.

    A prompt keeps the encoded images that it has not passed yet, and vLLM lets whoever finds no
    place for his own wait for it; but one that is held back does not go on meanwhile. So it gives
    up what it keeps. Its blocks stay, and what it still needs is encoded again.

    Args:
        manager: of the scheduler.
        requests: of the scheduler.
    """

    def __init__(self, manager: EncoderCacheManager, requests: Requests) -> None:
        self._manager = manager
        self._requests = requests
        self._can_allocate = manager.can_allocate
        manager.can_allocate = self.can_allocate  # type: ignore[method-assign]

    def can_allocate(
        self, request: Request, input_id: int, budget: int, num_embeds_to_schedule: int
    ) -> bool:
        """vLLM's ``can_allocate`` by class: same arguments, same result."""
        if self._can_allocate(request, input_id, budget, num_embeds_to_schedule):
            return True
        needed = request.get_num_encoder_embeds(input_id)
        if needed > budget:
            return False  # of this step; it is nobody's fault
        victims = self._victims(request)
        missing = needed + num_embeds_to_schedule - self._manager.num_freeable_slots
        if self._gain(victims) < missing:
            return False
        for victim in victims:
            self._manager.free(victim)
            if self._can_allocate(request, input_id, budget, num_embeds_to_schedule):
                return True
        return False

    def _victims(self, request: Request) -> list[Request]:
        """Held-back requests that keep encoded inputs, the least urgent and latest first.

        Those of its own class are held back for want of an adapter, behind ``request``.
        """
        level = self._requests.level
        held = [
            r
            for r in self._requests.held_back
            if level(r) >= level(request) and self._manager.get_cached_input_ids(r)
        ]
        return sorted(held, key=lambda r: (-level(r), -r.arrival_time))

    def _gain(self, victims: list[Request]) -> int:
        """Embeddings that nobody but ``victims`` keeps."""
        names = {victim.request_id for victim in victims}
        sizes = self._manager.num_embeds_by_hash
        return sum(
            sizes[key] for key, users in self._manager.cached.items() if users and users <= names
        )
