# SPDX-License-Identifier: Apache-2.0
"""What vLLM's endpoint plugins add to this server: routes below ``/qllm/``, and middleware."""

from __future__ import annotations

from typing import Any

from vllm_qllm.metrics import location


def endpoints() -> list[Any]:
    """Those of a server whose priority configuration is that of this process; none without one.

    Returns:
        Objects with the methods of ``vllm.plugins.endpoint_plugins.interface.EndpointPlugin``.
    """
    prepared = location.prepared()
    if prepared is None:
        return []
    from vllm_qllm.api.handlers import Handlers
    from vllm_qllm.api.scrape import ScrapeEndpoint
    from vllm_qllm.api.tier_names import TierNamesEndpoint
    from vllm_qllm.intake.endpoint import IntakeEndpoint
    from vllm_qllm.status.endpoint import StatusEndpoint
    from vllm_qllm.timeline.endpoint import TimelineEndpoint

    # What comes later stands before it: a body is counted before its tier is looked for.
    found: list[Any] = [ScrapeEndpoint(), TierNamesEndpoint(), IntakeEndpoint(), Handlers()]
    found.append(StatusEndpoint(prepared.prefix))
    if prepared.timeline:
        found.append(TimelineEndpoint(prepared.prefix))
    return found
