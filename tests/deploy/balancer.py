# SPDX-License-Identifier: Apache-2.0
"""The real nginx with the configuration of ``deploy/nginx``, on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.deploy.tools import TREE, program
from tests.serve.server import free_port

# Linux takes any address of 127/8 as its own: a client at this one is a trusted hop.
TRUSTED = "127.0.0.2"


@dataclass(frozen=True)
class Balancer:
    """A load balancer.

    Attributes:
        url: without a path.
        directory: of its configuration.
        log: of nginx and of what watches the replicas.
    """

    url: str
    directory: Path
    log: Path

    def requests(self) -> list[dict[str, Any]]:
        """The lines of its access log so far: some may come after an answer has been read."""
        whole, _, _ = self.log.read_text(errors="replace").rpartition("\n")
        return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]

    def logged(self, request_id: str) -> dict[str, Any]:
        """The line of a request, which nginx writes after its answer has been read."""
        deadline = time.monotonic() + 10
        while True:
            for line in self.requests():
                if line["id"] == request_id:
                    return line
            assert time.monotonic() < deadline, f"{request_id} is not in {self.log.read_text()}"
            time.sleep(0.02)

    def left_out(self) -> list[str]:
        """Replicas, as host:port, that get no requests while others do."""
        lines = (self.directory / "replicas.conf").read_text().splitlines()
        return [line.split()[1] for line in lines if line.endswith(" backup;")]

    def wait_until_left_out(self, *replicas: str, within_seconds: float = 30) -> None:
        """Until exactly these replicas, as host:port, get no requests."""
        deadline = time.monotonic() + within_seconds
        while set(self.left_out()) != set(replicas):
            assert time.monotonic() < deadline, f"left out: {self.left_out()}, not {replicas}"
            time.sleep(0.1)


@contextlib.contextmanager
def balance(replicas: Sequence[str], log: Path) -> Iterator[Balancer]:
    """Run nginx in front of replicas; all of it is gone after the block.

    Args:
        replicas: as host:port.
        log: where to write what it prints.
    """
    port = free_port()
    # Not a directory of pytest's: started by root, nginx's workers are another user.
    with (
        tempfile.TemporaryDirectory(prefix="nginx-") as directory,
        tempfile.TemporaryDirectory(prefix="nginx-source-") as source,
        log.open("ab") as out,  # nginx appends, too
    ):
        os.chmod(directory, 0o755)
        for path in (TREE / "deploy/nginx").iterdir():
            copy = Path(source, path.name)
            copy.write_bytes(path.read_bytes())
            copy.chmod(path.stat().st_mode)
        with Path(source, "trusted-hops.conf").open("a") as trusted:
            trusted.write(f"{TRUSTED}/32 1;\n")
        process = subprocess.Popen(
            [f"{source}/start.sh", directory],
            env=os.environ
            | {
                "REPLICAS": " ".join(replicas),
                "LISTEN": f"127.0.0.1:{port}",
                "NGINX_COMMAND": program("nginx"),
                "INTERVAL": "0.5",
            },
            stdout=out,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        balancer = Balancer(f"http://127.0.0.1:{port}", Path(directory), log)
        try:
            deadline = time.monotonic() + 20
            while True:
                with (
                    contextlib.suppress(OSError),
                    urllib.request.urlopen(f"{balancer.url}/healthz"),
                ):
                    break
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
            yield balancer
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.wait()
