# SPDX-License-Identifier: Apache-2.0
"""The count of a document is that of its objects, however it is cut, encoded and escaped."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_qllm.intake.json_size import COMMAS, JsonSize

LEAVES = st.none() | st.booleans() | st.integers() | st.text()
DOCUMENTS = st.recursive(
    LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=40
)


def items(document: Any) -> int:
    """Texts, names, lists and objects in what JSON holds."""
    if isinstance(document, str):
        return 1
    if isinstance(document, list):
        return 1 + sum(map(items, document))
    if isinstance(document, dict):
        return 1 + sum(1 + items(value) for value in document.values())
    return 0


def counted(data: bytes, size: int) -> int:
    count = JsonSize()
    for start in range(0, len(data), size):
        count.feed(data[start : start + size])
    assert count.length == len(data)
    return count.items


@given(DOCUMENTS, st.booleans(), st.integers(1, 9))
def test_it_counts_what_a_reader_makes(document: Any, ascii_only: bool, size: int) -> None:
    data = json.dumps(document, ensure_ascii=ascii_only).encode()
    assert 0 <= counted(data, size) - items(document) <= data.count(b",") // COMMAS


@given(st.integers(0, 2000), st.integers(1, 9))
def test_numbers_count_a_little(numbers: int, size: int) -> None:
    data = json.dumps({"prompt": list(range(numbers)), "text": "," * 500}).encode()
    assert counted(data, size) == 5 + (1 + max(0, numbers - 1)) // COMMAS


@given(DOCUMENTS, st.sampled_from(["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"]))
def test_other_encodings_hide_nothing(document: Any, encoding: str) -> None:
    data = json.dumps(document).encode(encoding)
    assert items(json.loads(data)) <= counted(data, 7)


@pytest.mark.parametrize("piece", [b'\\"' * 2**15, b'"' * 2**16, b"\\" * 2**16, b"[" * 2**16])
def test_no_piece_takes_long_whatever_it_holds(piece: bytes) -> None:
    count = JsonSize()
    began = time.thread_time()
    for _ in range(64):
        count.feed(piece)
    # Four megabytes: milliseconds each where it is linear, minutes where it is not.
    assert time.thread_time() - began < 5.0
