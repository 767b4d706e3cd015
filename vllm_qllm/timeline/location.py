# SPDX-License-Identifier: Apache-2.0
"""Where the rings are: beside the metrics of the same server, known to all of its processes."""

from __future__ import annotations

from pathlib import Path

from vllm_qllm.metrics.location import store_path

NAME = "timeline"


def ring_path(engine_index: int = 0) -> Path | None:
    """Where the engine in this process records; None: nowhere."""
    store = store_path(engine_index)
    return Path(store).with_name(f"{NAME}.{engine_index}") if store else None
