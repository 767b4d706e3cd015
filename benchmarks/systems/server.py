# SPDX-License-Identifier: Apache-2.0
"""Runs ``vllm serve`` for as long as a ``with`` block lasts, and leaves no process behind."""

import contextlib
import ctypes
import functools
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measurement.progress import Progress

GIB = 1 << 30
SERVED_NAME = "model"


class ServerDied(RuntimeError):
    """The server ended, or did not answer in time. The message holds the end of its log."""


@dataclass(frozen=True)
class Server:
    """A server that answers: its OpenAI base URL; its command and log, where we started it."""

    url: str
    command: tuple[str, ...]
    log: Path | None
    start_seconds: float
    model: str = SERVED_NAME

    @property
    def command_line(self) -> str:
        """The command, without the paths of this machine."""
        words = [Path(word).name if word.startswith("/") else word for word in self.command]
        return shlex.join(words)


def free_port() -> int:
    """A TCP port on loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def tail(log: Path, lines: int = 25) -> str:
    """The last lines of a log, for an error message."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def answers(url: str, timeout_seconds: float = 10.0) -> bool:
    """Whether ``/health`` beside an OpenAI base URL answers 200."""
    try:
        health = url.removesuffix("/v1") + "/health"
        with urllib.request.urlopen(health, timeout=timeout_seconds) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False


def running(url: str) -> Server:
    """A server that somebody else started. Raises ServerDied when it does not answer."""
    try:
        with urllib.request.urlopen(f"{url}/models", timeout=10.0) as answer:
            name = str(json.load(answer)["data"][0]["id"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ServerDied(f"{url}/models: {type(error).__name__}: {error}") from error
    return Server(url, (), None, 0.0, name)


def group_alive(group: int) -> bool:
    """Whether a process of this group still runs.

    Not ``killpg(group, 0)``, which also counts the dead whom nobody has reaped: in a container
    without an init process that is every child of a server that has ended.
    """
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # After the command name, bracketed, which may hold anything: state, parent, group.
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
        except (OSError, ValueError):
            continue  # ended meanwhile
        if int(its_group) == group and state not in "ZX":
            return True
    return False


def adopt_orphans() -> None:
    """Become the parent of whatever our servers leave, so that ``stop`` can reap it."""
    pr_set_child_subreaper = 36
    ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1, 0, 0, 0)


def stop(process: subprocess.Popen[bytes], grace_seconds: float) -> None:
    """End the server and every process it started. A second Ctrl-C must not cut this short."""
    old = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        if process.poll() is None:
            process.terminate()
        deadline = time.monotonic() + grace_seconds
        while group_alive(process.pid) and time.monotonic() < deadline:
            time.sleep(0.1)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-process.pid, 0):
                pass
    finally:
        signal.signal(signal.SIGINT, old)


@contextlib.contextmanager
def serve(
    model: Path,
    arguments: Sequence[str],
    log: Path,
    *,
    kv_bytes: int = GIB,
    timeout_seconds: float = 300.0,
    progress: Progress | None = None,
) -> Iterator[Server]:
    """Start ``vllm serve MODEL ARGUMENTS`` on a free loopback port; yield it once it is healthy.

    ``kv_bytes`` is given explicitly, because by default vLLM on CPU takes a share of all memory.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}/v1"
    command = (
        *(sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(model)),
        *("--host", "127.0.0.1", "--port", str(port), "--served-model-name", SERVED_NAME),
        *("--kv-cache-memory-bytes", str(kv_bytes), *arguments),
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    log.parent.mkdir(parents=True, exist_ok=True)
    began, grace = time.monotonic(), 2.0  # a server that still starts has nothing to finish
    adopt_orphans()
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
            # A process group of its own, to be ended as one; not a session of its own, which Linux
            # schedules as a group: on 6.18, with both cores busy, one was seen to wait 5 s.
            process_group=0,
        )
    try:
        while not answers(url, 2.0):
            waited = time.monotonic() - began
            if process.poll() is not None:
                raise ServerDied(
                    f"the server ended with status {process.returncode} before it answered; "
                    f"end of {log}:\n{tail(log)}"
                )
            if waited > timeout_seconds:
                raise ServerDied(
                    f"no answer in {timeout_seconds:.0f} s; end of {log}:\n{tail(log)}"
                )
            if progress:
                progress.say(f"starting the server, {waited:.0f} s")
            time.sleep(0.25)
        grace = 15.0
        yield Server(url, command, log, time.monotonic() - began)
        if process.poll() is not None:
            raise ServerDied(f"the server ended during the run; end of {log}:\n{tail(log)}")
    finally:
        stop(process, grace)


def exit_on_signals() -> None:
    """Make SIGTERM and SIGHUP unwind ``with`` blocks, as Ctrl-C does, so that servers are ended."""

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGHUP, leave)


def reported(main: Callable[[], int]) -> Callable[[], int]:
    """A benchmark's ``main`` that says why it ended early: 2 when a server died, 130 by Ctrl-C."""

    @functools.wraps(main)
    def run() -> int:
        try:
            return main()
        except ServerDied as error:
            print(f"\n{error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("\nstopped; no server is left running", file=sys.stderr)
            return 130

    return run
