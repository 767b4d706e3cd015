# SPDX-License-Identifier: Apache-2.0
"""One fleet for all tests that need one: in the order of the files, the last ones break it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.fleet import Fleet, fleet


@pytest.fixture(scope="package")
def running_fleet(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two replicas and nginx, both well at first."""
    with fleet(tiny_model, tmp_path_factory.mktemp("fleet")) as running:
        yield running
