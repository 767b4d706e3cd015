# SPDX-License-Identifier: Apache-2.0
"""One fleet of a kind for all tests that need one: in the order of the files, the last break it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.fleet import Fleet, fleet
from tests.deploy.ray_fleet import RayFleet, ray_fleet


@pytest.fixture(scope="package")
def running_fleet(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two replicas and nginx, both well at first."""
    with fleet(tiny_model, tmp_path_factory.mktemp("fleet")) as running:
        yield running


@pytest.fixture(scope="package", name="on_ray")
def running_ray_fleet(
    tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RayFleet]:
    """Two replicas on Ray, both well at first; no log may hold a key."""
    with ray_fleet(tiny_model, tmp_path_factory.mktemp("ray")) as running:
        yield running
        printed = running.log.read_text(errors="replace")
        assert not [name for name, key in running.keys.items() if key in printed]
