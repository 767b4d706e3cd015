# SPDX-License-Identifier: Apache-2.0
"""What ``python -m vllm_qllm.timeline`` says when there is nothing to draw."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from vllm_qllm.timeline.__main__ import main, summary
from vllm_qllm.timeline.response import response_times


@pytest.fixture
def other_server() -> Iterator[str]:
    """A server that is none of ours: 404 below /qllm, HTML below /html, for a key below /key."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path.startswith(("/html", "/json", "/key"))
            refused = self.path.startswith("/key") and self.headers["Authorization"] != "Bearer k"
            self.send_response(401 if refused else 200 if found else 404)
            self.end_headers()
            self.wfile.write(b"<p>hello</p>" if self.path.startswith("/html") else b"[1]")

        def log_message(self, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("", """answered 404 (is it served with --priority-config '{"timeline": true}'?)"""),
        ("/html", "Expecting value"),
        ("/json", "no timeline"),
    ],
)
def test_another_server(
    other_server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], path: str, said: str
) -> None:
    output = tmp_path / "trace.json"
    assert main(["--url", other_server + path, "-o", str(output)]) == 1
    error = capsys.readouterr().err
    assert said in error and f"{other_server}{path}/qllm/timeline?seconds=10.0" in error
    assert not output.exists()


def test_the_key_is_sent(
    other_server: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = ["--url", other_server + "/key", "-o", str(tmp_path / "t.json")]
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert main(arguments) == 1
    assert "answered 401 (with tenants it is for operators" in capsys.readouterr().err
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    assert main(arguments) == 1
    assert "no timeline" in capsys.readouterr().err


def test_no_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--url", "http://127.0.0.1:9", "-o", str(tmp_path / "t.json")]) == 1
    assert "Connection refused" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "", "ftp//x"])
def test_no_url(tmp_path: Path, capsys: pytest.CaptureFixture[str], url: str) -> None:
    assert main(["--url", url, "-o", str(tmp_path / "t.json")]) == 1
    assert f"error: {url}" in capsys.readouterr().err


def test_the_summary_counts_what_lies_in_the_time() -> None:
    started = {"kind": "request_started", "class": "a"}
    engine = {
        "classes": ["a", "b"],
        "start": 10.0,
        "complete": False,
        "events": [
            started | {"time": 9.0, "response": 5.0},
            started | {"time": 10.0, "response": 0.25},
            started | {"time": 11.0, "response": 0.125},
            {"kind": "queue", "class": "b", "time": 11.0},
        ],
    }
    document = json.loads(json.dumps({"engines": [engine]}))
    assert response_times(document) == {"a": [0.125, 0.25], "b": []}
    assert summary(document).splitlines() == [
        "a: 2 requests started, response time p50 187.50 ms, p99 248.75 ms, max 250.00 ms",
        "b: 0 requests started",
        "the ring is too small for so many seconds: the beginning is missing",
    ]
