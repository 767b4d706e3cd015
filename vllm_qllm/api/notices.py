# SPDX-License-Identifier: Apache-2.0
"""Lines of the log about clients that may not mean what they get; each is written once."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Iterator, Mapping
from typing import Any

from vllm_qllm.api.said import EXTRA, FIELDS
from vllm_qllm.config import PriorityConfig

# Each process writes at most so many of each sort: clients choose what they say.
MOST = 16
# Fields of an object. A logit bias may have a hundred thousand.
LOOKED_AT = 256
# A field that looks as if it named an urgency.
LIKE = re.compile(r"(x[-_])?(vllm[-_])?(request[-_])?(priority|service[-_]?tier)", re.IGNORECASE)
PLAIN = re.compile(r"[\w.-]{1,40}", re.ASCII)

logger = logging.getLogger("vllm.qllm")


def shown(value: Any) -> str:
    """``repr`` of at most 103 characters, whatever a body holds."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, a very deep list
        return f"a {type(value).__name__} too large to show"
    return text if len(text) <= 100 else text[:100] + "..."


def misplaced(body: Mapping[str, Any]) -> Iterator[str]:
    """Fields of a body that look as if they named an urgency, and are not read.

    Gateways have fields of their own for it (``nvext.agent_hints.priority``, ``x_priority``), and
    ``metadata`` belongs to the client.
    """
    for name, value in _first(body):
        if name not in FIELDS and LIKE.fullmatch(name):
            yield name
        elif isinstance(value, Mapping):
            read = FIELDS if name == EXTRA else ()
            for inner, further in _first(value):
                if inner not in read and LIKE.fullmatch(inner):
                    yield f"{_plain(name)}.{inner}"
                elif name == "nvext" and isinstance(further, Mapping):
                    for least, _ in _first(further):
                        if LIKE.fullmatch(least):
                            yield f"nvext.{_plain(inner)}.{least}"


def _first(fields: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Those of a usual request: this runs where all requests come in."""
    return itertools.islice(fields.items(), LOOKED_AT)


def _plain(name: str) -> str:
    return name if PLAIN.fullmatch(name) else "(other)"


class Notices:
    """What one process has written already."""

    def __init__(self) -> None:
        self._written: dict[str, set[str | None]] = {}
        self._somebody_asks = False

    def _is_new(self, sort: str, what: str | None, most: int = MOST) -> bool:
        written = self._written.setdefault(sort, set())
        if what in written or len(written) >= most:
            return False
        written.add(what)
        return True

    def not_read(self, body: Mapping[str, Any], tenant: str | None) -> None:
        """Say which fields of a body look as if they named an urgency, and do not."""
        for name in misplaced(body):
            if self._is_new("not read", name):
                logger.warning(
                    "A request%s names %s, which is not read: an urgency is named by priority or "
                    "service_tier at the top of the body, or by the header X-Vllm-Priority. This "
                    "is said once.",
                    _of(tenant),
                    name,
                )

    def unknown_tier(self, tier: Any, config: PriorityConfig) -> None:
        """Say that a request names a tier that nothing is known about."""
        if self._is_new("tier", shown(tier)):
            logger.warning(
                "service_tier is %s in a request, which is served as if it named none; known: %s. "
                "service_tiers in --priority-config gives names a class. This is said once.",
                shown(tier),
                ", ".join(config.service_tiers),
            )

    def asks(self, asked: int | None, cls: str, tenant: str | None) -> None:
        """Say that a client names no urgency where others do.

        Args:
            asked: the priority that a request asks for, None when it asks for none.
            cls: the class that it is served in.
            tenant: whose request it is; None on a server without tenants.
        """
        if asked is not None:
            self._somebody_asks = True
        elif self._somebody_asks and self._is_new("asks for none", tenant, most=1000):
            logger.warning(
                "A request%s names neither priority nor service_tier, while others do: it is "
                "served in the class %s. This is said once%s.",
                _of(tenant),
                cls,
                "" if tenant is None else " a tenant",
            )


def _of(tenant: str | None) -> str:
    return "" if tenant is None else f" of tenant {tenant}"


NOTICES = Notices()
