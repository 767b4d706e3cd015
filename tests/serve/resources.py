# SPDX-License-Identifier: Apache-2.0
"""What the processes of a server hold, as Linux counts it."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from tests.serve.server import Server

API_SERVER = "API server"


@dataclass(frozen=True)
class Usage:
    """What one process holds.

    Attributes:
        files: number of open file descriptors.
        threads: number of threads.
        shared: number of mappings of shared memory.
        private: resident memory of its own, MiB.
    """

    files: int
    threads: int
    shared: int
    private: float


def processes(server: Server) -> dict[str, int]:
    """Process ids by title: the API server, ``EngineCore``, ``Worker`` or ``Worker_TP<rank>``."""
    found = {API_SERVER: server.process.pid}
    for pid in server.processes():
        with contextlib.suppress(OSError):  # ended meanwhile
            title = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()
            if title.startswith("VLLM::"):
                found[title.removeprefix("VLLM::")] = pid
    return found


def usage(pid: int) -> Usage:
    """What this process holds now."""
    process = Path(f"/proc/{pid}")
    status = (process / "status").read_text()
    anonymous, threads = (
        int(re.search(rf"^{field}:\s+(\d+)", status, re.MULTILINE)[1])  # type: ignore[index]
        for field in ("RssAnon", "Threads")
    )
    shared = (process / "maps").read_text().count("/dev/shm/")
    return Usage(len(os.listdir(process / "fd")), threads, shared, anonymous / 1024)


def shared_memory(server: Server) -> set[Path]:
    """Files of shared memory that its processes have mapped."""
    found: set[Path] = set()
    for pid in server.processes():
        with contextlib.suppress(OSError):
            maps = Path(f"/proc/{pid}/maps").read_text()
            found |= {Path(name) for name in re.findall(r"(/dev/shm/\S+)$", maps, re.MULTILINE)}
    return found
