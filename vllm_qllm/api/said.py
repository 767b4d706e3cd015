# SPDX-License-Identifier: Apache-2.0
"""What the body of a request says about its urgency, wherever a client has put it.

OpenAI's SDK sends the entries of ``extra_body`` at the top of the body. Who writes JSON, or passes
the parameter through another client, sends it as a field: what it holds counts as said at the top.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vllm_qllm.intake.urgency_fields import EXTRA, PRIORITY, SERVICE_TIER

FIELDS = (PRIORITY, SERVICE_TIER, "vllm_xargs")


class ContradictionError(ValueError):
    """A field is said twice, and not the same.

    Args:
        field: its name at the top.
        top: what it is there.
        extra: what it is in ``extra_body``.
    """

    def __init__(self, field: str, top: Any, extra: Any) -> None:
        super().__init__(field)
        self.field, self.top, self.extra = field, top, extra


@dataclass(frozen=True)
class Said:
    """What a request says; null, and what is not there, is None.

    Attributes:
        priority: as it was sent, or as it was parsed.
        service_tier: as it was sent.
        vllm_xargs: those at the top and those in ``extra_body``.
        extra: names of the fields that stand in ``extra_body``.
    """

    priority: Any = None
    service_tier: Any = None
    vllm_xargs: Any = None
    extra: frozenset[str] = frozenset()

    def place(self, field: str) -> str:
        """The field as an error is to name it."""
        return f"{EXTRA}.{field}" if field in self.extra else field


def said_in(body: Mapping[str, Any]) -> Said:
    """What a body says.

    Raises:
        ContradictionError: ``extra_body`` and the top of the body say different things.
    """
    extra = body.get(EXTRA)
    found: dict[str, Any] = {}
    inner = set()
    for field in FIELDS:
        top = body.get(field)
        lower = extra.get(field) if isinstance(extra, Mapping) else None
        if lower is not None and top != lower:
            inner.add(field)
            if isinstance(top, Mapping) and isinstance(lower, Mapping):
                for name in top.keys() & lower.keys():
                    if top[name] != lower[name]:
                        raise ContradictionError(f"{field}.{name}", top[name], lower[name])
                lower = {**top, **lower}
            elif top is not None:
                raise ContradictionError(field, top, lower)
        found[field] = top if lower is None else lower
    return Said(**found, extra=frozenset(inner))
