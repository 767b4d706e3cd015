# SPDX-License-Identifier: Apache-2.0
"""The files of a server, held open from when they were first seen.

Directories of temporary files are cleaned: by a timer, once the server is ten days old, or by hand.
That takes the names away, not the files. Engines go on to write them, and a reader that holds one
open reads on.
"""

from __future__ import annotations

import os
import stat
import threading
import weakref
from pathlib import Path


class KeptFiles:
    """Files ``NAME.0``, ``NAME.1``, ... of a directory, for any names. Any thread may call it.

    Args:
        directory: where they are made.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._files: dict[str, tuple[int, os.stat_result]] = {}
        weakref.finalize(self, _close, self._files)

    def look(self) -> None:
        """Open what has come since the last time, and what has replaced another.

        Raises:
            OSError: a file is there and cannot be opened, as without free file descriptors.
        """
        with self._lock:
            for path in self._directory.glob("*.*"):
                if path.suffix[1:].isdigit():
                    self._keep(path)

    def _keep(self, path: Path) -> None:
        held = self._files.get(path.name)
        try:
            status = os.lstat(path)
            # Once a directory's name is free, another user may take it.
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
                return
            if held is not None and os.path.samestat(status, held[1]):
                return
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return
        self._files[path.name] = file, os.fstat(file)
        if held is not None:
            os.close(held[0])

    def named(self, name: str) -> dict[int, Path]:
        """Those called so, by their number: paths by which this process can open them."""
        self.look()
        with self._lock:
            found = {
                int(number): Path(f"/proc/self/fd/{file}")
                for key, (file, _) in self._files.items()
                for stem, _, number in (key.rpartition("."),)
                if stem == name
            }
        return dict(sorted(found.items()))


_kept: weakref.WeakValueDictionary[Path, KeptFiles] = weakref.WeakValueDictionary()
_lock = threading.Lock()


def kept(directory: Path) -> KeptFiles:
    """What this process keeps of a directory, for as long as anybody holds this."""
    with _lock:
        found = _kept.get(directory)
        if found is None:
            found = _kept[directory] = KeptFiles(directory)
        return found


def _close(files: dict[str, tuple[int, os.stat_result]]) -> None:
    for file, _ in files.values():
        os.close(file)
