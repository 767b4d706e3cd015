# SPDX-License-Identifier: Apache-2.0
"""Serve's request router with the rule of :func:`vllm_qllm.routing.work_ahead`."""

from __future__ import annotations

import random
import time
from typing import Any

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from vllm_qllm.ray.ledger import Ledger
from vllm_qllm.ray.messages import ReplicaRequest
from vllm_qllm.routing import work_ahead


class UrgencyRouter(RequestRouter):
    """Sends a request to the replica that has the least work at least as urgent.

    One lives in each front. Replicas report by ``record_routing_stats``, which Serve's controller
    asks for and passes to all routers.
    """

    def initialize_state(self, classes: int) -> None:
        """Called by Serve.

        Args:
            classes: number of them.
        """
        self._ledger = Ledger(classes)

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """All of them, each a level of its own, the best one first.

        Those that do not answer come after those that do, and last those that had the request.
        """
        if pending_request is None:
            return [candidate_replicas]
        # Wait a moment before the next round when none of them takes it.
        pending_request.routing_context.should_backoff = True
        ask: ReplicaRequest = pending_request.args[0]
        by_id = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        for name, replica in by_id.items():
            if stats := replica.routing_stats:
                self._ledger.report(name, stats["at"], stats["counts"])
        self._ledger.keep(list(by_id))
        order = sorted(
            by_id,
            key=lambda name: (
                name in ask.tried,
                not self._ledger.answers(name),
                work_ahead(self._ledger.counts(name), ask.level),
                random.random(),  # between equals
            ),
        )
        if order:
            # Counted from now on, so that the next one does not see the same.
            self._note(pending_request, order[0])
        return [[by_id[name]] for name in order]

    def on_request_routed(
        self, pending_request: PendingRequest, replica_id: ReplicaID, result: Any
    ) -> None:
        """Called by Serve: a replica, which may not be the first choice, has taken it."""
        self._note(pending_request, replica_id.unique_id)

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        """Called by Serve, however it ended."""
        self._ledger.ended(internal_request_id)

    def _note(self, pending: PendingRequest, replica: str) -> None:
        request = pending.metadata.internal_request_id
        self._ledger.sent(replica, request, pending.args[0].level, time.time())
