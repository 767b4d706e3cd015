# SPDX-License-Identifier: Apache-2.0
"""A server that answers as each request says, byte by byte, and a way to run a batch against it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vllm_qllm.batch.__main__ import main

URL = "/v1/completions"
GOOD = {"object": "text_completion", "choices": [{"index": 0, "finish_reason": "stop"}]}
# What a script may hold in place of bytes.
HANG, HANG_UP = "hang", "hang up"


def raw(
    status: int,
    body: bytes | Any = GOOD,
    headers: dict[str, str] | None = None,
    length: int | None = None,
) -> str:
    """A response; ``length`` is what it says about its body, if that is not the truth."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    size = len(data) if length is None else length
    lines = [f"HTTP/1.1 {status} Something", f"Content-Length: {size}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode().decode("latin-1") + data.decode("latin-1")


class Scripted:
    """A server on this machine.

    A request whose body holds ``script`` gets its n-th try answered by the n-th entry, and all
    later ones by the last: text of :func:`raw`, or one of HANG and HANG_UP. Others get GOOD.

    Attributes:
        url: without a path.
        health: what ``/health`` is answered, as in a script.
        tries: how often each ``custom_id`` was asked, by the field ``name`` of its body.
        times: when, ``time.monotonic()`` seconds.
    """

    def __init__(self) -> None:
        self.health = raw(200)
        self.tries: Counter[str] = Counter()
        self.times: list[float] = []
        self.paths: list[str] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        starting = asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024)
        self._server = asyncio.run_coroutine_threadsafe(starting, self._loop).result(10)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            path = head.split()[1]
            if path == "/health":
                await self._say(self.health, writer)
            else:
                size = int(head.split("content-length: ")[1].split()[0])
                self.paths.append(path)
                await self._say(self._next(json.loads(await reader.readexactly(size))), writer)
        writer.close()

    def _next(self, body: dict[str, Any]) -> str:
        self.times.append(time.monotonic())
        script = body.get("script")
        if not isinstance(script, list):
            return raw(200)
        self.tries[body["name"]] += 1
        return script[min(self.tries[body["name"]], len(script)) - 1]

    async def _say(self, entry: str, writer: asyncio.StreamWriter) -> None:
        if entry == HANG:
            await asyncio.sleep(30)
        elif entry != HANG_UP:
            writer.write(entry.encode("latin-1"))
            await writer.drain()

    def close(self) -> None:
        """End it."""

        async def end() -> None:
            self._server.close()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@contextlib.contextmanager
def scripted() -> Iterator[Scripted]:
    """A server for as long as a block lasts."""
    server = Scripted()
    try:
        yield server
    finally:
        server.close()


def lines_of(scripts: dict[str, Sequence[str]], url: str = URL) -> bytes:
    """An input whose requests are answered so."""
    lines = [
        {"custom_id": name, "method": "POST", "url": url, "body": {"name": name, "script": script}}
        for name, script in scripts.items()
    ]
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def run(server: Scripted, source: Path | str, out: Path, *options: str) -> int:
    """Run the command in this process; returns its exit status."""
    return main(["-i", str(source), "-o", str(out), "--url", server.url, *options])


def results(out: Path) -> dict[str, dict[str, Any]]:
    """Lines of an output by id, each id once."""
    lines = [json.loads(line) for line in out.read_bytes().splitlines()]
    found = {line["custom_id"]: line for line in lines}
    assert len(found) == len(lines), "an id has two lines"
    for line in found.values():
        assert (line["response"] is None) != (line["error"] is None)
    return found


def is_answered(line: dict[str, Any]) -> bool:
    """Whether it is an answer, and no error."""
    return line["response"] is not None and line["response"]["status_code"] in range(200, 300)
