# SPDX-License-Identifier: Apache-2.0
"""Keeps one server up for as long as the next run needs the same one."""

import contextlib
from pathlib import Path
from types import TracebackType

from benchmarks.measurement.matrix import Cell, Setup
from benchmarks.measurement.progress import Progress
from benchmarks.systems.server import Server, ServerDied, answers, running, serve


class Host:
    """A context manager, after which no server is left.

    Args:
        logs: folder of the servers' logs.
    """

    def __init__(self, setup: Setup, logs: Path, progress: Progress | None = None) -> None:
        self.setup, self.logs, self.progress = setup, logs, progress
        self._stack = contextlib.ExitStack()
        self._running: tuple[tuple[str, ...], Server] | None = None
        # A system that did not start once is not tried again for each of its cells.
        self._broken: dict[tuple[str, ...], str] = {}

    def __enter__(self) -> "Host":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, traceback)

    def has(self, cell: Cell) -> bool:
        """Whether the server for this cell is up."""
        return self._running is not None and self._running[0] == cell.arguments(self.setup)

    def server(self, cell: Cell) -> Server:
        """The server for this cell. Raises ServerDied where there is none to be had."""
        if self.setup.url is not None:
            return running(self.setup.url)
        arguments = cell.arguments(self.setup)
        if self._running and self._running[0] == arguments:
            return self._running[1]
        self.close()
        if arguments in self._broken:
            raise ServerDied(self._broken[arguments])
        log = self.logs / f"{cell.name}.log"
        try:
            server = self._stack.enter_context(
                serve(self.setup.model, arguments, log, progress=self.progress)
            )
        except ServerDied as error:
            self._broken[arguments] = str(error)
            raise
        self._running = arguments, server
        return server

    def trouble(self) -> str | None:
        """Why the server no longer answers, if so; it is ended then."""
        if self._running is None or answers(self._running[1].url):
            return None
        return self.close() or "the server stopped answering during the run"

    def close(self) -> str | None:
        """End the server; what it died of, if it did."""
        self._running = None
        try:
            self._stack.close()
        except ServerDied as error:
            return str(error)
        return None
