# SPDX-License-Identifier: Apache-2.0
"""A real ``vllm serve`` in a process group of its own, for as long as a ``with`` block lasts."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

MODEL = "tiny"
# Float32, so that no batch shape can flip a token; eager, so that a start takes seconds.
ARGUMENTS = ("--dtype", "float32", "--enforce-eager", "--max-model-len", "2048")
STRICT = ("--priority-policy", "strict")


@dataclass(frozen=True)
class Server:
    """A server.

    Attributes:
        url: without a path.
        process: whose id is also that of its process group.
        log: everything it has printed.
    """

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def get(self, path: str) -> str:
        """The body of a GET; OSError when it is not answered with a status of success."""
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return str(answer.read().decode())

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to a POST of JSON; OSError when it has no status of success."""
        data = json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data, headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def samples(self, prefix: str = "qllm_") -> dict[str, float]:
        """What ``/metrics`` says: ``name{label="value",...}``, labels by name, to number."""
        found = {}
        for family in text_string_to_metric_families(self.get("/metrics")):
            for sample in family.samples:
                if sample.name.startswith(prefix):
                    labels = ",".join(f'{k}="{v}"' for k, v in sorted(sample.labels.items()))
                    found[f"{sample.name}{{{labels}}}"] = sample.value
        return found

    def processes(self) -> list[int]:
        """Ids of its processes that still run."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):  # ended meanwhile
                # What follows the name, which is in brackets: state, parent, process group.
                state, _, group = stat.read_text().rpartition(")")[2].split()[:3]
                if int(group) == self.process.pid and state not in "ZX":
                    found.append(int(stat.parent.name))
        return found

    def has_ended(self, within_seconds: float) -> bool:
        """Wait for the last of its processes to end."""
        deadline = time.monotonic() + within_seconds
        while self.processes():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return self.process.wait() is not None

    def tail(self, lines: int = 60) -> str:
        """The end of the log, for an error message."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def wait_until_it_answers(self, timeout_seconds: float) -> None:
        """Poll ``/health``; AssertionError with the end of the log when that does not help."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            with contextlib.suppress(OSError):
                self.get("/health")
                return
            assert self.process.poll() is None, f"the server ended:\n{self.tail()}"
            assert time.monotonic() < deadline, f"the server does not answer:\n{self.tail()}"
            time.sleep(0.25)

    def stop(self) -> None:
        """Ask it to end, then make it."""
        if self.process.poll() is None:
            self.process.terminate()
        if not self.has_ended(within_seconds=20):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def free_port() -> int:
    """A port of this machine that nobody listens on now.

    Not one that the kernel may give to a connection before the server comes to listen.
    """
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    anything = random.SystemRandom()  # vLLM seeds the module's own with the same number everywhere
    while True:
        port = anything.randrange(10_000, first)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


@contextlib.contextmanager
def serve(
    model: Path,
    log: Path,
    *arguments: str,
    port: int | None = None,
    timeout_seconds: float = 240.0,
) -> Iterator[Server]:
    """Start a server on this machine; all of it is gone after the block.

    Args:
        model: directory of the model.
        log: where to write what the server prints.
        arguments: of ``vllm serve``, after :data:`ARGUMENTS`.
        port: to listen on; None for a free one.
        timeout_seconds: how long it may take until it answers.
    """
    port = port or free_port()
    command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(model)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", MODEL]
    environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "INFO"}
    # Tests set it for engines in their own process; a server has engine processes.
    environment.pop("VLLM_ENABLE_V1_MULTIPROCESSING", None)
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, *ARGUMENTS, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment,
            # Not a session of its own: Linux schedules each session as a group (autogroup), and
            # on 6.18 with both cores busy a group was seen to wait 5 s for its turn.
            process_group=0,
        )
    server = Server(f"http://127.0.0.1:{port}", process, log)
    try:
        server.wait_until_it_answers(timeout_seconds)
        yield server
    finally:
        server.stop()
