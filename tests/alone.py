# SPDX-License-Identifier: Apache-2.0
"""Tests marked ``alone`` run while no other test does, also when workers share the tests.

They measure time. With ``pytest -n`` every test holds a lock while it runs: a marked one
exclusively, all others together.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest


class Turns:
    """Lets each test of this worker begin when it may."""

    def __init__(self, directory: Path) -> None:
        # Who waits for the room holds the door, so that others cannot overtake again and again.
        self._door, self._room = directory / "door", directory / "room"

    # First, and so around the timeout: waiting counts for nothing.
    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Hold the lock for setup, call and teardown."""
        with self.turn(alone=item.get_closest_marker("alone") is not None):
            return (yield)

    @contextlib.contextmanager
    def turn(self, alone: bool) -> Iterator[None]:
        """For as long as the block lasts, nobody else's turn is one ``alone``, or none at all."""
        with self._room.open("w") as room:
            with self._door.open("w") as door:
                fcntl.flock(door, fcntl.LOCK_EX)
                fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            try:
                yield
            finally:
                # Closing is not enough: a forked process may have the file, too.
                fcntl.flock(room, fcntl.LOCK_UN)
