# SPDX-License-Identifier: Apache-2.0
"""What of a server clients may reach."""

from __future__ import annotations

import re
from urllib.parse import unquote

# Everything else of a server, /metrics and what changes its state, stays inside.
_OPEN = re.compile(r"/v1/(?!(un)?load_lora_adapter$).*|/health")


def is_open(path: str) -> bool:
    """Whether a request for ``path``, without its query, is passed on.

    A path with ``.`` or ``..`` for a segment is not: whoever passes it on may shorten it, and then
    it is another one.
    """
    segments = set(unquote(path).split("/"))
    return _OPEN.fullmatch(path) is not None and not segments & {".", ".."}
