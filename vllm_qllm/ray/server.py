# SPDX-License-Identifier: Apache-2.0
"""One ``vllm serve``, the child of a replica's actor."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence

import httpx
from prometheus_client.parser import text_string_to_metric_families

from vllm_qllm.ray.settings import Settings

# Ended with the actor however that ends: it would keep the device.
LEASH = ("setpriv", "--pdeathsig", "TERM", "--")
# Whatever a request is counted by while a server has it.
STATES = ("qllm_requests_running", "qllm_requests_waiting", "qllm_requests_suspended")
LOOK_SECONDS = 5.0
# After the time to drain, before it is made to end.
GRACE_SECONDS = 30.0


class Server:
    """Not there before :meth:`start`.

    Args:
        settings: its own.

    Attributes:
        client: of its HTTP API; no limit of time but for connecting.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._classes = [c.name for c in settings.priorities.classes]
        self._directory = tempfile.TemporaryDirectory(prefix="vllm-qllm-ray-")
        self._process: subprocess.Popen[bytes] | None = None
        if settings.listen is None:
            socket = f"{self._directory.name}/socket"
            self._listen, url = ["--uds", socket], "http://vllm"
            transport = httpx.AsyncHTTPTransport(uds=socket, limits=_UNLIMITED)
        else:
            host, _, port = settings.listen.rpartition(":")
            reach = "127.0.0.1" if host == "0.0.0.0" else host
            self._listen, url = ["--host", host, "--port", port], f"http://{reach}:{port}"
            transport = httpx.AsyncHTTPTransport(limits=_UNLIMITED)
        timeout = httpx.Timeout(None, connect=LOOK_SECONDS)
        self.client = httpx.AsyncClient(transport=transport, base_url=url, timeout=timeout)

    def command(self) -> list[str]:
        """The command line."""
        settings = self._settings
        command = [*LEASH, sys.executable, "-m", "vllm.entrypoints.cli.main", "serve"]
        command += [settings.model, *self._listen]
        command += ["--shutdown-timeout", str(settings.drain_seconds)]
        if settings.policy is not None:
            command += ["--priority-policy", settings.policy]
        if settings.priority_config is not None:
            given = settings.priority_config
            command += ["--priority-config", given if isinstance(given, str) else json.dumps(given)]
        return [*command, *settings.arguments]

    async def start(self) -> None:
        """Returns when it answers.

        Raises:
            RuntimeError: it has ended; what it said is in the log of this actor.
        """
        self._process = subprocess.Popen(  # noqa: ASYNC220 - uvloop knows no process groups
            self.command(),
            env=os.environ | self._settings.environment,
            stdin=subprocess.DEVNULL,
            process_group=0,
        )
        while not await self.is_well():
            if self.status is not None:
                raise RuntimeError(
                    f"vllm serve ended with status {self.status} before it answered; its log is "
                    "that of this actor"
                )
            await asyncio.sleep(0.25)

    @property
    def status(self) -> int | None:
        """With which it ended; None while it runs."""
        return None if self._process is None else self._process.poll()

    async def is_well(self) -> bool:
        """Whether it answers and takes requests."""
        if self.status is not None:
            return False
        try:
            return (await self.client.get("/health", timeout=LOOK_SECONDS)).is_success
        except httpx.HTTPError:
            return False

    async def counts(self) -> list[int] | None:
        """Its requests by class, most urgent first, from ``/metrics``; None: no answer."""
        try:
            answer = await self.client.get("/metrics", timeout=LOOK_SECONDS)
        except httpx.HTTPError:
            return None
        return requests_by_class(answer.text, self._classes) if answer.is_success else None

    async def stop(self) -> None:
        """Let it drain; after that make it end."""
        await self.client.aclose()
        if self._process is not None:
            self._process.terminate()
            seconds = self._settings.drain_seconds + GRACE_SECONDS
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(self._process.wait, seconds)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._directory.cleanup()


# An idle connection is closed before the server does it, after five seconds: a request that met
# that would be lost.
_UNLIMITED = httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=2)


def requests_by_class(metrics: str, classes: Sequence[str]) -> list[int]:
    """Requests that run, wait or are suspended, by class.

    Args:
        metrics: the text of ``/metrics``; one that does not say it counts as none.
        classes: names, most urgent first.
    """
    # A server has thousands of lines, and the parser is slow.
    lines = [line for line in metrics.splitlines() if line.startswith(STATES)]
    counts = dict.fromkeys(classes, 0)
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        for sample in family.samples:
            if sample.name in STATES and sample.labels.get("class") in counts:
                counts[sample.labels["class"]] += int(sample.value)
    return list(counts.values())
