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


def rings(prefix: str) -> list[Path]:
    """The rings that exist now beside the stores with this prefix."""
    return sorted(p for p in Path(prefix).parent.glob(f"{NAME}.*") if p.suffix[1:].isdigit())
