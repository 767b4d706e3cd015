# SPDX-License-Identifier: Apache-2.0
"""The fields of a body that say an urgency, found without making objects of the body."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

PRIORITY, SERVICE_TIER, EXTRA = "priority", "service_tier", "extra_body"
FIELDS = {name.encode(): name for name in (PRIORITY, SERVICE_TIER, EXTRA)}
ESCAPE = b"\\u00"
# Of a name, each letter of which may be written as "\u0070".
LONGEST_NAME = 6 * max(map(len, FIELDS))
# Of a value; what is longer is no tier and no priority.
LONGEST_VALUE = 512
# So many names that may be one of these are looked at.
MOST = 4096
# A value that says something, though not what.
UNCLEAR = object()

_WHITESPACE = b" \t\n\r"
_TOKEN = re.compile(rb"[^\s,\]}]+")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def urgency_fields(body: bytes) -> Iterator[tuple[str, Any]]:
    """Names and values at the top of a body and at the top of its ``extra_body``.

    All is linear in the body, and most of it is done by methods of ``bytes``. What has no JSON has
    any fields; its reader refuses it.

    Args:
        body: JSON.

    Yields:
        ``priority`` or ``service_tier``, and a string, number or None, or :data:`UNCLEAR`.
    """
    if not json.detect_encoding(body).startswith("utf-8"):
        yield PRIORITY, UNCLEAR
        return
    if ESCAPE not in body and not any(name in body for name in FIELDS):
        return
    if b"\\" in body:
        # Of backslashes in a row every second one is escaped; what then follows is, too.
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    # What is left of quotes begins and ends texts in turn.
    parts = body.split(b'"')
    outside, texts = parts[::2], parts[1::2]
    if ESCAPE in body:
        may_be = (
            number
            for number, text in enumerate(texts)
            if text in FIELDS or (len(text) <= LONGEST_NAME and ESCAPE in text)
        )
    else:
        may_be = (number for number, text in enumerate(texts) if text in FIELDS)
    hits = list(itertools.islice(may_be, MOST + 1))
    if len(hits) > MOST:
        yield PRIORITY, UNCLEAR
        return
    place = _Place()
    done = 0
    for number in hits:
        place.pass_(b"".join(outside[done : number + 1]))
        done = number + 1
        after = outside[done].lstrip(_WHITESPACE) if done < len(outside) else b""
        if not after.startswith(b":") or not place.counts:
            continue
        if (name := _name(texts[number])) is None:
            continue
        after = after[1:].lstrip(_WHITESPACE)
        if name != EXTRA:
            yield name, _value(after, texts[done] if done < len(texts) else b"")
        elif place.depth == 1 and after.startswith(b"{"):
            place.in_extra = True


class _Place:
    """How deep one is in the body.

    Attributes:
        depth: objects and lists that have begun and not ended.
        in_extra: one of them is ``extra_body``.
    """

    def __init__(self) -> None:
        self.depth, self.in_extra = 0, False

    @property
    def counts(self) -> bool:
        return self.depth == 1 or (self.in_extra and self.depth == 2)

    def pass_(self, outside: bytes) -> None:
        """Go on behind what stands outside of texts."""
        if not self.in_extra:
            opened = outside.count(b"{") + outside.count(b"[")
            self.depth += opened - outside.count(b"}") - outside.count(b"]")
            return
        for bracket in outside.translate(None, _NO_BRACKETS):
            self.depth += 1 if bracket in b"[{" else -1
            if self.depth <= 1:
                self.in_extra = False


def _name(text: bytes) -> str | None:
    if ESCAPE not in text or len(text) > LONGEST_NAME:
        return FIELDS.get(text)
    said = _decoded(text)
    return said if said in FIELDS.values() else None


def _value(after: bytes, text: bytes) -> Any:
    if not after:
        return _decoded(text) if len(text) <= LONGEST_VALUE else UNCLEAR
    token = _TOKEN.match(after[:LONGEST_VALUE])
    if token is None or token.end() == LONGEST_VALUE:
        return UNCLEAR
    try:
        value = json.loads(token[0])
    except ValueError:
        return UNCLEAR
    return value if value is None or isinstance(value, (int, float)) else UNCLEAR


def _decoded(text: bytes) -> Any:
    try:
        return json.loads(b'"' + text + b'"')
    except ValueError:
        return UNCLEAR
