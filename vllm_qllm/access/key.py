# SPDX-License-Identifier: Apache-2.0
"""API keys: 256 random bits, of which a file holds the SHA-256 hash only.

A slow hash is for secrets that people choose. These cannot be guessed, so a fast one will do.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from typing import TypeVar

PREFIX = "qllm-"
HASH_PATTERN = r"sha256:[0-9a-f]{64}"
# Longer ones are not looked at, so that nobody makes the server hash megabytes.
MAX_LENGTH = 512

Named = TypeVar("Named")


def new_key() -> str:
    """A key that has never been seen before."""
    return PREFIX + secrets.token_urlsafe(32)


def hash_of(key: str) -> str:
    """What a file holds of a key: ``sha256:`` and 64 hexadecimal digits."""
    return "sha256:" + hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def is_key(presented: str, expected_hash: str) -> bool:
    """Whether a key has this hash; takes as long when it has not."""
    return owner(presented, {expected_hash: True}) is True


def owner(presented: str, owners: Mapping[str, Named]) -> Named | None:
    """The tenant that has this key; None where none has it.

    All hashes are compared, each in constant time: how long it takes does not tell how much of
    which one was met.

    Args:
        presented: the key.
        owners: by hash.
    """
    if len(presented) > MAX_LENGTH:
        return None
    hashed = hash_of(presented)
    found = None
    for known, name in owners.items():
        if hmac.compare_digest(hashed, known):
            found = name
    return found
