# SPDX-License-Identifier: Apache-2.0
"""Files that an operator names: read at once and whole, or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFDIR: "a directory",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def read_text(path: str | Path, max_bytes: int) -> str:
    """The content of a regular file, in UTF-8.

    Whoever opens a pipe waits for its writer, and a device may have no end: neither may happen to
    a server, which reads on the thread that serves everybody.

    Args:
        path: of the file; links are followed.
        max_bytes: that it may have.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no regular file, is too large, or is not UTF-8.
    """
    _check(os.stat(path), max_bytes)  # before it is opened: to open a device may do something
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        _check(os.fstat(handle), max_bytes)  # it may be another one by now
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise ValueError(_too_large(max_bytes))
    return data.decode("utf-8")


def _check(found: os.stat_result, max_bytes: int) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        raise ValueError(f"it is {kind} and no regular file")
    if found.st_size > max_bytes:
        raise ValueError(_too_large(max_bytes))


def _too_large(max_bytes: int) -> str:
    return f"it has more than {max_bytes} bytes"
