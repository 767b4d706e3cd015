# SPDX-License-Identifier: Apache-2.0
"""The tenants file of a server that runs: read again when it has changed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from vllm_qllm.access.tenants_config import TenantsConfig
from vllm_qllm.config import ConfigError

logger = logging.getLogger("vllm.qllm")

OUTCOMES = LOADED, REFUSED = "loaded", "refused"


class TenantsFile:
    """The tenants as they are now. A file that cannot be used changes nothing.

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
        load: Callable[[], TenantsConfig],
        reloaded: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        interval: float = 1.0,
    ) -> None:
        self._path, self._load = Path(path), load
        self._reloaded, self._clock, self._interval = reloaded, clock, interval
        # Looked at before it is read: what changes between the two is read again.
        self._looked, self._state = clock(), self._stat()
        self._tenants_config = load()

    def current(self) -> TenantsConfig:
        """The last one that could be read."""
        now = self._clock()
        if now - self._looked < self._interval:
            return self._tenants_config
        self._looked = now
        if (state := self._stat()) == self._state:
            return self._tenants_config
        self._state = state
        try:
            self._tenants_config = self._load()
        except ConfigError as error:
            logger.error("The tenants stay as they were: %s", error)
            self._reloaded(REFUSED)
        else:
            logger.info("%d tenants read from %s.", len(self._tenants_config.tenants), self._path)
            self._reloaded(LOADED)
        return self._tenants_config

    def _stat(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size
