# SPDX-License-Identifier: Apache-2.0
"""``python -m vllm_qllm.batch`` against a live server: best effort, and resumed after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.serve.server import MODEL, Server

pytestmark = [pytest.mark.server, pytest.mark.slow]

COUNT = 24


def requests() -> list[dict[str, Any]]:
    """Chats, completions, one that is wrong, and one that says how urgent it is."""
    chat = {"messages": [{"role": "user", "content": "hello"}], "temperature": 0}
    bodies: list[tuple[str, dict[str, Any]]] = [
        ("/v1/chat/completions", chat | {"max_tokens": 150, "ignore_eos": True})
    ] * (COUNT - 3)
    bodies += [
        ("/v1/completions", {"prompt": "hello", "max_tokens": 3}),
        ("/v1/completions", {"prompt": "hello", "max_tokens": -3}),
        ("/v1/chat/completions", chat | {"max_tokens": 2, "service_tier": "default"}),
    ]
    return [
        {"custom_id": f"r{n}", "method": "POST", "url": url, "body": {"model": MODEL} | body}
        for n, (url, body) in enumerate(bodies)
    ]


def batch(server: Server, directory: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "vllm_qllm.batch", "-i", str(directory / "in.jsonl")]
    command += ["-o", str(directory / "out.jsonl"), "--url", server.url, *options]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
    )


@pytest.mark.covers("python -m vllm_qllm.batch", "eager")
def test_a_batch_is_resumed_after_a_crash(server: Server, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(r) + "\n" for r in requests()))
    out = tmp_path / "out.jsonl"
    first = batch(server, tmp_path, "--concurrency", "1")
    deadline = time.monotonic() + 100
    while not out.exists() or out.read_bytes().count(b"\n") < 3:
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.wait()
    before = out.read_bytes()
    assert 3 <= before.count(b"\n") < COUNT
    with out.open("ab") as file:
        file.write(b'{"id": "batch_req_9", "custom_id": "r')  # as a crash while writing leaves it
    second = batch(server, tmp_path)
    said, _ = second.communicate(timeout=200)
    assert second.returncode == 1, said  # one of them is an error
    now = COUNT - before.count(b"\n")
    assert f"{COUNT} of {COUNT} answered, {now} of them now; 1 errors" in said
    # What was there is there still, and nothing was asked twice.
    assert out.read_bytes().startswith(before)
    answers = {a["custom_id"]: a for a in map(json.loads, out.read_text().splitlines())}
    assert out.read_text().count("\n") == len(answers) == COUNT
    for n, request in enumerate(requests()):
        response = answers[request["custom_id"]]["response"]
        assert response["status_code"] == (400 if n == COUNT - 2 else 200)
        if n != COUNT - 2:
            tier = "default" if n == COUNT - 1 else "flex"
            assert response["body"]["service_tier"] == tier
    third = batch(server, tmp_path)
    assert f"{COUNT} of {COUNT} answered, 0 of them now" in third.communicate(timeout=100)[0]
    assert out.read_text().count("\n") == COUNT
