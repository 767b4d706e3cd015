# SPDX-License-Identifier: Apache-2.0
"""The output: one answer a line, in the order in which they come; it is what a restart goes by."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import stat
from collections.abc import Set
from pathlib import Path

from vllm_qllm.batch import BatchError
from vllm_qllm.batch.answer import Answer, is_success

# How every line begins that was written here, with its id and without.
BEGINNING = b'{"id": "batch_req_'
_NAMED = re.compile(rb'\{"id": "batch_req_\d+", "custom_id": ("(?:[^"\\]|\\.)*")')


class AnswerFile:
    """A file that grows by whole lines.

    A line is written at once when its answer is there. A last line without an end is what a crash
    left: it is cut off, and its request is asked again. Nothing else is ever taken away.

    Args:
        path: of the file, made when there is none.
        ids: of this batch's requests.
        source: of the input, as ``os.fstat`` says, which must not be the same file.

    Raises:
        BatchError: it cannot be written, another program is writing it, it is the input, or it
            holds something that is not an answer.

    Attributes:
        answered: ids of the requests whose answers or errors it holds.
        errors: ids of those that have no answer but an error.
    """

    def __init__(
        self, path: str | Path, ids: Set[str], source: os.stat_result | None = None
    ) -> None:
        self._path, self._ids = Path(path), ids
        self.answered: set[str] = set()
        self.errors: set[str] = set()
        try:
            # Not to wait for the reader of a pipe.
            self._file = open(self._path, "a+b", buffering=0, opener=_open)  # noqa: SIM115
        except OSError as error:
            raise BatchError(f"{path}: {error}") from error
        try:
            self._status = os.fstat(self._file.fileno())
            self._claim(source)
            self._size = self._read()
        except BaseException:
            self._file.close()
            raise

    def _claim(self, source: os.stat_result | None) -> None:
        if not stat.S_ISREG(self._status.st_mode):
            raise BatchError(f"{self._path} is not a file: what is answered is read from it again")
        if source is not None and os.path.samestat(self._status, source):
            raise BatchError(f"{self._path} is the input, too; allowed: another file")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BatchError(f"{self._path}: another program is writing this file") from None
        except OSError as error:
            raise BatchError(f"{self._path} cannot be locked: {error}") from error

    def _read(self) -> int:
        """Note what is there; returns the size of it in bytes."""
        try:
            self._file.seek(0)
            size = 0
            for number, line in enumerate(self._file, 1):
                if self._note(line):
                    size += len(line)
                    if not line.endswith(b"\n"):  # as some editors leave the last one
                        size += self._file.write(b"\n")
                elif line.endswith(b"\n"):
                    raise BatchError(f"{self._path}, line {number} is not an answer")
                elif not self._is_torn(line, number == 1):
                    raise BatchError(
                        f"{self._path}, line {number} is not an answer and has no end; nothing was "
                        "changed; allowed: a file of this batch's answers, or none"
                    )
                else:
                    self._file.truncate(size)
        except OSError as error:
            raise BatchError(f"{self._path}: {error}") from error
        return size

    def _note(self, line: bytes) -> bool:
        """Note an answer; returns whether the line is one."""
        try:
            data = json.loads(line)
            name, response, error = data["custom_id"], data["response"], data.get("error")
            good = response is not None and not error and is_success(response["status_code"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return False
        if not isinstance(name, str) or (response is None and not isinstance(error, dict)):
            return False
        self._count(name, good)
        return True

    def _is_torn(self, line: bytes, is_first: bool) -> bool:
        """Whether the rest of a file is the beginning of a line of this batch's."""
        if named := _NAMED.match(line):
            with contextlib.suppress(ValueError):
                return json.loads(named[1]) in self._ids
            return False
        # Its id is torn, too. Where nothing stands before it anybody may have written it.
        return not is_first and (line.startswith(BEGINNING) or BEGINNING.startswith(line))

    def _count(self, name: str, good: bool) -> None:
        if good:
            self.errors.discard(name)
        elif name not in self.answered:
            self.errors.add(name)
        self.answered.add(name)

    def add(self, custom_id: str, answer: Answer) -> None:
        """Append what has become of a request.

        Raises:
            BatchError: it cannot be written, as on a full disk, or the file is there no more.
        """
        line = {
            "id": f"batch_req_{len(self.answered)}",
            "custom_id": custom_id,
            "response": answer.response,
            "error": answer.error,
        }
        data = left = json.dumps(line).encode() + b"\n"
        try:
            if not os.path.samestat(os.stat(self._path), self._status):
                raise BatchError(f"{self._path} was replaced by another file; run it again")
            while left:  # a full disk takes a part, then none
                left = left[self._file.write(left) :]
        except OSError as error:
            with contextlib.suppress(OSError):  # others may still get theirs written
                self._file.truncate(self._size)
            raise BatchError(f"{self._path}: {error}; run it again to go on") from error
        self._size += len(data)
        self._count(custom_id, answer.is_good)

    def close(self) -> None:
        """Make sure that the disk has it, and let others write.

        Raises:
            BatchError: the disk fails.
        """
        try:
            with self._file:
                os.fsync(self._file.fileno())
        except OSError as error:
            raise BatchError(f"{self._path}: {error}; run it again to go on") from error


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK, 0o666)
