# SPDX-License-Identifier: Apache-2.0
"""How much a JSON document will cost whoever reads it, counted while it arrives."""

from __future__ import annotations

import json

# Enough to see in which of its encodings JSON is.
_BEGINNING = 4
COMMAS = 32


class JsonSize:
    """Counts texts, names of fields, lists and objects, and every 32 commas between them.

    A reader makes 32 numbers in the time of a text with a name. The count is linear in
    the document, and no object is made for any part of it. What is not JSON is counted somehow; its
    reader stops at the first mistake, so it costs no more than what was counted.

    Attributes:
        length: bytes.
    """

    def __init__(self) -> None:
        self.length = 0
        self._beginning = b""
        self._quotes = self._brackets = self._commas = 0
        self._escapes = b""  # a backslash at the very end of a piece

    @property
    def items(self) -> int:
        """How many there are so far."""
        if not json.detect_encoding(self._beginning).startswith("utf-8"):
            return self.length // 2  # UTF-16 or UTF-32, in which no bracket has fewer bytes
        return (self._quotes + 1) // 2 + self._brackets + self._commas // COMMAS

    def feed(self, piece: bytes) -> None:
        """Count the next part of the document."""
        if len(self._beginning) < _BEGINNING:
            self._beginning += piece[: _BEGINNING - len(self._beginning)]
        self.length += len(piece)
        piece = self._escapes + piece
        self._escapes = b""
        if b"\\" in piece:
            # Of backslashes in a row every second one is escaped; what then follows is, too.
            piece = piece.replace(b"\\\\", b"").replace(b'\\"', b"")
            if piece.endswith(b"\\"):
                piece, self._escapes = piece[:-1], b"\\"
        # What is left of quotes begins and ends texts in turn.
        parts = piece.split(b'"')
        outside = b"".join(parts[self._quotes % 2 :: 2])
        self._brackets += outside.count(b"[") + outside.count(b"{")
        self._commas += outside.count(b",")
        self._quotes += len(parts) - 1
