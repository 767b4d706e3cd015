# SPDX-License-Identifier: Apache-2.0
"""One line of JSON for each refusal, in the log; never a key, a prompt or a header's value."""

from __future__ import annotations

import json
import logging

from vllm_qllm.access.refusal import Refusal

# Below vLLM's own logger, so that its handlers and VLLM_LOGGING_CONFIG_PATH apply.
logger = logging.getLogger("vllm.qllm.audit")


def write(tenant: str, refusal: Refusal, path: str, request_id: str) -> None:
    """Write the line.

    Args:
        tenant: its name, "none" while it is not known.
        refusal: what it was told.
        path: of the request, as :func:`vllm_qllm.access.route_kind.shown` shows it.
        request_id: which the answer names as ``X-Request-Id``.
    """
    line = {
        "event": "refused",
        "tenant": tenant,
        "class": refusal.cls,
        "reason": refusal.reason,
        "status": refusal.status_at(path),
        "path": path,
        "request_id": request_id,
    }
    logger.warning("%s", json.dumps(line))
