# SPDX-License-Identifier: Apache-2.0
"""What somebody leaves who cleans the directory of temporary files under a running server."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from tests.serve.server import Server


def held(server: Server, directory: Path) -> set[Path]:
    """Files below a directory that processes of a server have open or mapped, by name."""
    found = set()
    for pid in server.processes():
        process = Path(f"/proc/{pid}")
        with contextlib.suppress(OSError):  # ended meanwhile
            named = {
                line.split(maxsplit=5)[-1] for line in (process / "maps").read_text().splitlines()
            }
            for link in (process / "fd").iterdir():
                with contextlib.suppress(OSError):  # closed meanwhile
                    named.add(str(link.readlink()))
            found |= {Path(name) for name in named if name.startswith(f"{directory}/")}
    return {path for path in found if path.is_file()}


def clean(directory: Path) -> None:
    """Remove all that is in a directory."""
    for path in directory.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
