# SPDX-License-Identifier: Apache-2.0
"""The application that ``import_path`` in the file for ``serve run`` names."""

from __future__ import annotations

from typing import Any

from ray import serve
from ray.serve.config import RequestRouterConfig

from vllm_qllm.ray.front import Front
from vllm_qllm.ray.replica import Replica
from vllm_qllm.ray.router import UrgencyRouter
from vllm_qllm.ray.server import GRACE_SECONDS
from vllm_qllm.ray.settings import Settings

# How often replicas say what they have. Seconds.
REPORT_SECONDS = 0.5
# A server has limits of its own (--max-num-queued-reqs): Serve's are not to come first.
ANY_NUMBER = 100_000


def build(args: dict[str, Any]) -> serve.Application:
    """Fronts before replicas.

    Args:
        args: fields of :class:`Settings`.

    Raises:
        ConfigError: a field cannot be used.
    """
    settings = Settings.parse(args)
    replica = serve.deployment(
        Replica,
        name="Replica",
        max_ongoing_requests=ANY_NUMBER,
        graceful_shutdown_wait_loop_s=0.5,
        # It waits for its requests first, and then for its server.
        graceful_shutdown_timeout_s=settings.drain_seconds + 2 * GRACE_SECONDS,
        health_check_period_s=2,
        health_check_timeout_s=10,
        request_router_config=RequestRouterConfig(
            request_router_class=UrgencyRouter,
            request_router_kwargs={"classes": len(settings.priorities.classes)},
            request_routing_stats_period_s=REPORT_SECONDS,
        ),
    )
    front = serve.deployment(
        Front,
        name="Front",
        max_ongoing_requests=ANY_NUMBER,
        graceful_shutdown_timeout_s=settings.drain_seconds,
    )
    # Plain data: what is not in these fields does not get to other machines.
    fields = settings.model_dump(mode="json")
    return front.bind(fields, replica.bind(fields))
