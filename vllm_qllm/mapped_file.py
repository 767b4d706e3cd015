# SPDX-License-Identifier: Apache-2.0
"""A file in memory that one process writes and others read while it does."""

from __future__ import annotations

import mmap
import os
from pathlib import Path


def create(path: str | Path, size: int, header: bytes) -> mmap.mmap:
    """A new mapped file of ``size`` bytes that begins with ``header``, the rest zero.

    Readers find either no file or a complete one.

    Raises:
        OSError: the file cannot be made, or there is no room for all of it.
    """
    draft = Path(f"{path}.{os.getpid()}.new")
    try:
        with draft.open("x+b") as file:
            # All of it now: a store into a mapped page that the disk has no room for would end
            # the process with SIGBUS.
            os.posix_fallocate(file.fileno(), 0, size)
            file.write(header)
            file.flush()
            mapped = mmap.mmap(file.fileno(), size)
        draft.rename(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    return mapped
