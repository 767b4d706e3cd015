# SPDX-License-Identifier: Apache-2.0
"""Putting a new file in the place of one that others read, so that they still can."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

# How long to wait for somebody else who changes a file there. Seconds.
PATIENCE = 10.0


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """While nobody else changes files in a directory in this way.

    The file itself cannot be locked: it is another one after it was replaced.

    Raises:
        OSError: there is no such directory, or somebody else does not come to an end.
    """
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"another program changes files in {directory}") from None
                time.sleep(0.02)
        yield
    finally:
        os.close(handle)  # which unlocks it


def replace(target: Path, text: str) -> None:
    """Write a file in one step: readers have the old one or the new one, and so after a crash.

    Owner, group, mode and access lists stay; the owner may change where everybody may read it.
    A new file can be read by its owner only.

    Raises:
        OSError: it cannot be written, or would not be as it was for its readers; the old one
            stays.
    """
    handle, draft = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")  # 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            if target.exists():
                _keep(target, handle)
            os.fsync(handle)
        os.replace(draft, target)
    except BaseException:
        os.unlink(draft)
        raise
    directory = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _keep(target: Path, draft: int) -> None:
    """Give a draft what says who may read the file."""
    old, new = target.stat(), os.fstat(draft)
    if old.st_nlink > 1:
        raise OSError("the file has other names, which would keep what it was; allowed: one name")
    _keep_owner(old, new, draft)
    os.fchmod(draft, old.st_mode & 0o7777)
    for name in os.listxattr(target):  # access lists and security labels
        value = os.getxattr(target, name)
        if name not in os.listxattr(draft) or os.getxattr(draft, name) != value:
            os.setxattr(draft, name, value)


def _keep_owner(old: os.stat_result, new: os.stat_result, draft: int) -> None:
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        try:
            os.fchown(draft, old.st_uid, old.st_gid)
        except PermissionError:
            if old.st_mode & stat.S_IROTH:
                return  # everybody may read it, whoever's it is
            raise PermissionError(
                f"the file belongs to user {old.st_uid} and group {old.st_gid} and would belong to "
                f"{new.st_uid} and {new.st_gid}; allowed: as its owner, or as root"
            ) from None
