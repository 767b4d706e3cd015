# SPDX-License-Identifier: Apache-2.0
"""The input: one request a line, in the form of OpenAI's batch files."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from vllm_qllm.batch import BatchError
from vllm_qllm.batch.request import NoRequest, Request, parse

MAX_COMPLAINTS = 10


class RequestFile:
    """A file of requests, read and checked before the first one is sent.

    Args:
        path: of the file. It is read twice, and not kept in memory; what can be read only once,
            as a pipe, is copied into a file without a name first.
        tier: ``service_tier`` of requests that say neither that nor ``priority``.

    Raises:
        BatchError: it cannot be read, or none of its lines is a request.

    Attributes:
        ids: of all lines, also of those that cannot be sent: each gets an answer or an error.
        nameless: number of lines that can have neither, as they have no id, or another's.
        complaints: a sentence for each of the first of these.
        status: of the file that was named, as ``os.fstat`` says.
    """

    def __init__(self, path: str | Path, tier: str) -> None:
        self._path, self._tier = Path(path), tier
        self.ids: set[str] = set()
        self.nameless = 0
        self.complaints: list[str] = []
        try:
            self._file, self.status = _opened(self._path)
        except OSError as error:
            raise BatchError(f"{path}: {error}") from error
        for number, line in self._lines():
            try:
                request = parse(line, tier)
                if request.custom_id in self.ids:
                    raise NoRequest(
                        f"has custom_id {request.custom_id!r:.100}, which is there before; "
                        "allowed: each once"
                    )
                self.ids.add(request.custom_id)
            except NoRequest as error:
                self.nameless += 1
                if self.nameless <= MAX_COMPLAINTS:
                    self.complaints.append(f"{path}, line {number} {error}")
        if self.nameless and not self.ids:
            raise BatchError(f"{self.complaints[0]}; no line of it is a request")

    def without(self, answered: set[str]) -> Iterator[Request]:
        """Each request that has no answer yet, once, in the order of the file."""
        left = self.ids - answered
        for number, line in self._lines():
            try:
                request = parse(line, self._tier)
            except NoRequest:
                continue
            if request.custom_id in left:
                left.remove(request.custom_id)
                if request.problem:
                    problem = f"line {number}: {request.problem}"
                    request = Request(request.custom_id, problem=problem)
                yield request

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        try:
            self._file.seek(0)
            for number, line in enumerate(self._file, 1):
                # Some editors begin a file with a mark of its encoding.
                text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                if text.strip():
                    yield number, text
        except OSError as error:
            raise BatchError(f"{self._path}: {error}") from error

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def _opened(path: Path) -> tuple[IO[bytes], os.stat_result]:
    file: IO[bytes] = path.open("rb")
    status = os.fstat(file.fileno())
    if stat.S_ISREG(status.st_mode):
        return file, status
    with file:
        copy = tempfile.TemporaryFile()  # noqa: SIM115 - it stays open
        shutil.copyfileobj(file, copy)
    return copy, status
