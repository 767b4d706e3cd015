# SPDX-License-Identifier: Apache-2.0
"""One scripted server for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.batch.scripted import Scripted, scripted


@pytest.fixture
def server() -> Iterator[Scripted]:
    """A server that answers as requests say."""
    with scripted() as running:
        yield running
