# SPDX-License-Identifier: Apache-2.0
"""A replica that is no vLLM: it answers with the path and headers it got, for what nginx does."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# A request to HELD says that it has come, and is answered when it is let go.
HELD, COME, LET_GO = "/v1/held", threading.Event(), threading.Event()


class Echo(BaseHTTPRequestHandler):
    """``/health`` is well; anything else comes back."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(json.dumps({"path": self.path}).encode())

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == HELD:
            COME.set()
            LET_GO.wait(60)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self._answer(
            json.dumps({"path": self.path, "headers": headers, "size": len(body)}).encode()
        )

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def echo(port: int = 0) -> Iterator[str]:
    """Serve on loopback, on a free port unless one is given; gives host:port."""
    with ThreadingHTTPServer(("127.0.0.1", port), Echo) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
