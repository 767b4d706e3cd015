# SPDX-License-Identifier: Apache-2.0
"""docs/configuration.md says of every field what the field itself says."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from vllm_qllm.config import PriorityClass, PriorityConfig
from vllm_qllm.config.reference import attributes, render

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


@pytest.mark.parametrize("record", [PriorityConfig, PriorityClass])
def test_every_field_says_what_it_means(record: type) -> None:
    said = dict(attributes(record))
    assert list(said) == [field.name for field in fields(record)]
    assert all(meaning.endswith(".") for meaning in said.values())


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == f"{render()}\n", "make pages"
