# SPDX-License-Identifier: Apache-2.0
"""Keys are recognised by their hashes, in constant time."""

from __future__ import annotations

import hmac
import re

import pytest

from vllm_qllm.access.key import HASH_PATTERN, MAX_LENGTH, hash_of, is_key, new_key, owner


def test_keys_are_long_and_differ() -> None:
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(len(key) >= 5 + 43 for key in keys)
    assert all(re.fullmatch(HASH_PATTERN, hash_of(key)) for key in keys)


def test_the_owner_is_found() -> None:
    keys = {name: new_key() for name in "abc"}
    owners = {hash_of(key): name for name, key in keys.items()}
    for name, key in keys.items():
        assert owner(key, owners) == name
    for wrong in ("", keys["a"][:-1], keys["a"] + "x", hash_of(keys["a"]), "ä\udcff", "x" * 10**6):
        assert owner(wrong, owners) is None
    assert is_key(keys["a"], hash_of(keys["a"]))
    assert not is_key(keys["a"], hash_of(keys["b"]))
    assert not is_key("x" * (MAX_LENGTH + 1), hash_of("x" * (MAX_LENGTH + 1)))


def test_every_hash_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []
    real = hmac.compare_digest

    def compare(mine: str, known: str) -> bool:
        compared.append(known)
        return real(mine, known)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    keys = [new_key() for _ in range(5)]
    owners = {hash_of(key): key for key in keys}
    for key in (keys[0], keys[-1], "wrong"):
        compared.clear()
        owner(key, owners)
        assert compared == list(owners)
