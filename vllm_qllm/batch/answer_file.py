# SPDX-License-Identifier: Apache-2.0
"""The output: one answer a line, in the order in which they come; it is what a restart goes by."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

from vllm_qllm.batch import BatchError


class AnswerFile:
    """A file that grows by whole lines.

    A line is written at once when its answer is there. A last line without an end is what a crash
    left: it is cut off, and its request is asked again.

    Args:
        path: of the file, made when there is none.

    Raises:
        BatchError: it cannot be written, another program is writing it, or it holds a line that is
            not an answer.

    Attributes:
        answered: ids of the requests whose answers it holds.
        failed: how many of these are errors.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        try:
            self._file = self._path.open("a+b", buffering=0)
        except OSError as error:
            raise BatchError(f"{path}: {error}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise BatchError(f"{path}: another program is writing this file") from None
        self.answered: set[str] = set()
        self.failed = 0
        self._read()

    def _read(self) -> None:
        self._file.seek(0)
        whole = 0
        for number, line in enumerate(self._file, 1):
            if not line.endswith(b"\n"):
                break
            try:
                data = json.loads(line)
                self._count(data["custom_id"], data["response"]["status_code"])
            except (ValueError, KeyError, TypeError, RecursionError):
                raise BatchError(f"{self._path}, line {number} is not an answer") from None
            whole += len(line)
        self._file.truncate(whole)

    def _count(self, custom_id: str, status: int) -> None:
        self.answered.add(custom_id)
        self.failed += status >= 400

    def add(self, custom_id: str, status: int, request_id: str | None, body: Any) -> None:
        """Append an answer.

        Args:
            custom_id: of its request.
            status: of HTTP.
            request_id: that the server gave it.
            body: of the answer.

        Raises:
            BatchError: it cannot be written, as on a full disk.
        """
        line = {
            "id": f"batch_req_{len(self.answered)}",
            "custom_id": custom_id,
            "response": {"status_code": status, "request_id": request_id, "body": body},
            "error": None,
        }
        data = json.dumps(line).encode() + b"\n"
        try:
            while data:  # a full disk takes a part, then none
                data = data[self._file.write(data) :]
        except OSError as error:
            raise BatchError(f"{self._path}: {error}; run it again to go on") from error
        self._count(custom_id, status)

    def close(self) -> None:
        """Make sure that the disk has it, and let others write."""
        os.fsync(self._file.fileno())
        self._file.close()
