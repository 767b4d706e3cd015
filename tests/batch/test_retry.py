# SPDX-License-Identifier: Apache-2.0
"""A real HTTP server that has too much to do, fails, or goes away for a while."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from vllm_qllm.batch import BatchError
from vllm_qllm.batch.answer_file import AnswerFile
from vllm_qllm.batch.request_file import Request
from vllm_qllm.batch.retry import Retry
from vllm_qllm.batch.runner import Runner


class Busy(ThreadingHTTPServer):
    """Answers as the body says: a list of statuses, one a try; a status 0 hangs up."""

    tries: Counter[str]
    times: list[float]


class Handler(BaseHTTPRequestHandler):
    server: Busy

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.times.append(time.monotonic())
        statuses, name = body["statuses"], body["name"]
        status = statuses[min(self.server.tries[name], len(statuses) - 1)]
        self.server.tries[name] += 1
        if not status:
            self.close_connection = True
            return
        answer = json.dumps({"name": name}).encode()
        self.send_response(status)
        if status in (429, 503):
            self.send_header("Retry-After", "1")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def busy() -> Iterator[Busy]:
    server = Busy(("127.0.0.1", 0), Handler)
    server.tries, server.times = Counter(), []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def run(busy: Busy, path: Path, bodies: list[list[int]], patience: float = 60.0) -> dict[str, int]:
    """Statuses by id; what is asked is named by its index."""

    async def go() -> None:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{busy.server_port}") as client:
            requests = iter(
                Request(str(n), "/v1/x", {"name": str(n), "statuses": statuses})
                for n, statuses in enumerate(bodies)
            )
            runner = Runner(client, answers, Retry(patience), lambda _: None)
            await runner.run(requests, concurrency=3)

    answers = AnswerFile(path)
    try:
        asyncio.run(go())
    finally:
        answers.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert all(line["response"]["body"]["name"] == line["custom_id"] for line in lines)
    return {line["custom_id"]: line["response"]["status_code"] for line in lines}


def test_what_another_try_may_change_is_tried_again(busy: Busy, tmp_path: Path) -> None:
    asked = [[200], [429, 200], [503, 200], [500, 200], [0, 200], [400], [500], [422, 200]]
    expected = [200, 200, 200, 200, 200, 400, 500, 422]
    got = run(busy, tmp_path / "out", asked)
    assert [got[str(n)] for n in range(len(asked))] == expected
    assert [busy.tries[str(n)] for n in range(len(asked))] == [1, 2, 2, 2, 2, 1, 3, 1]


def test_who_is_told_to_wait_makes_all_wait(busy: Busy, tmp_path: Path) -> None:
    assert set(run(busy, tmp_path / "out", [[429, 200], *[[200]] * 20]).values()) == {200}
    # At most those that were under way, of three clients, come before the pause.
    assert sum(at < busy.times[0] + 0.95 for at in busy.times) <= 6


def test_patience_ends(busy: Busy, tmp_path: Path) -> None:
    with pytest.raises(BatchError, match=r"too long \(status 503\); run it again"):
        run(busy, tmp_path / "out", [[503]], patience=0.5)
    assert (tmp_path / "out").read_bytes() == b""


def test_a_key_that_is_not_known_ends_it(busy: Busy, tmp_path: Path) -> None:
    with pytest.raises(BatchError, match="OPENAI_API_KEY"):
        run(busy, tmp_path / "out", [[401]] * 5)
    assert sum(busy.tries.values()) <= 3
