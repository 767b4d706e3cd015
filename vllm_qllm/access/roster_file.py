# SPDX-License-Identifier: Apache-2.0
"""The tenants file of a server that runs: read again when it has changed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from vllm_qllm.access.roster import Roster
from vllm_qllm.config import ConfigError

logger = logging.getLogger("vllm.qllm")

OUTCOMES = LOADED, REFUSED = "loaded", "refused"


class RosterFile:
    """The roster as it is now. A file that cannot be used changes nothing.

    Args:
        path: of the file.
        load: reads it.
        reloaded: is told LOADED or REFUSED when the file has changed.
        clock: seconds.
        interval: the file is looked at no more often than that. Seconds.

    Raises:
        ConfigError: the file cannot be used.
    """

    def __init__(
        self,
        path: str | Path,
        load: Callable[[], Roster],
        reloaded: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        interval: float = 1.0,
    ) -> None:
        self._path, self._load = Path(path), load
        self._reloaded, self._clock, self._interval = reloaded, clock, interval
        # Looked at before it is read: what changes between the two is read again.
        self._looked, self._state = clock(), self._stat()
        self._roster = load()

    def current(self) -> Roster:
        """The last roster that could be read."""
        now = self._clock()
        if now - self._looked < self._interval:
            return self._roster
        self._looked = now
        if (state := self._stat()) == self._state:
            return self._roster
        self._state = state
        try:
            self._roster = self._load()
        except ConfigError as error:
            logger.error("The tenants stay as they were: %s", error)
            self._reloaded(REFUSED)
        else:
            logger.info("%d tenants read from %s.", len(self._roster.tenants), self._path)
            self._reloaded(LOADED)
        return self._roster

    def _stat(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size
