# SPDX-License-Identifier: Apache-2.0
"""The routes of this server below ``/qllm/``, as vLLM's endpoint plugins."""

from __future__ import annotations

from typing import Any

from vllm_qllm.metrics import location


def endpoints() -> list[Any]:
    """Those that the priority configuration of this process asks for; none without a policy.

    Returns:
        Objects with the methods of ``vllm.plugins.endpoint_plugins.interface.EndpointPlugin``.
    """
    prepared = location.prepared()
    if prepared is None or not prepared.timeline:
        return []
    from vllm_qllm.timeline.endpoint import TimelineEndpoint

    return [TimelineEndpoint(prepared.prefix)]
