# SPDX-License-Identifier: Apache-2.0
"""nginx before one server, with the location that ``docs/status.md`` shows; it can hang and end."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.deploy.tools import TREE, program
from tests.serve.server import Server, free_port

CONFIGURATION = """
daemon off;
master_process off;
pid nginx.pid;
error_log stderr warn;
events {{}}
http {{
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
    scgi_temp_path scgi; uwsgi_temp_path uwsgi;
    server {{
        listen 127.0.0.1:{port};
{location}
    }}
}}
"""


def location(server: Server) -> tuple[str, str]:
    """The prefix in the page's documentation, and the location with this server for its own."""
    page = (TREE / "docs/status.md").read_text()
    found = re.search(r"^    (location (/\S+)/qllm/ \{.*?^    \})$", page, re.MULTILINE | re.DOTALL)
    assert found, "docs/status.md shows no location"
    text, replaced = re.subn(r"http://vllm-a:8000", server.url, found[1])
    assert replaced == 1
    return found[2], text


class Prefix:
    """The same pages below a prefix.

    Attributes:
        url: with the prefix.
    """

    def __init__(self, server: Server) -> None:
        self._port = free_port()
        prefix, self._location = location(server)
        self.url = f"http://127.0.0.1:{self._port}{prefix}"
        self._process: subprocess.Popen[bytes] | None = None
        self._directory = tempfile.TemporaryDirectory(prefix="nginx-")

    def start(self) -> None:
        """Returns when it answers."""
        file = Path(self._directory.name, "nginx.conf")
        file.write_text(CONFIGURATION.format(port=self._port, location=self._location))
        command = [program("nginx"), "-p", self._directory.name, "-c", str(file), "-e", "stderr"]
        self._process = subprocess.Popen(command, process_group=0)
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/qllm/"):
                return
            assert self._process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal: SIGSTOP makes it hang, with its connections open."""
        assert self._process is not None
        os.kill(self._process.pid, number)

    def stop(self) -> None:
        """End it at once: connections are refused from now on."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """End it, and leave nothing."""
        self.stop()
        self._directory.cleanup()


@contextlib.contextmanager
def below_a_prefix(server: Server) -> Iterator[Prefix]:
    """nginx that runs; all of it is gone after the block."""
    prefix = Prefix(server)
    try:
        prefix.start()
        yield prefix
    finally:
        prefix.close()
