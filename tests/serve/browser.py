# SPDX-License-Identifier: Apache-2.0
"""A real Chromium without a window, driven by its DevTools protocol."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.deploy.tools import libraries, program

OPTIONS = (
    "--remote-debugging-port=0",
    "--no-sandbox",  # which root cannot have
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
)

# Codes of keys with which the browser itself does something.
KEYS = {"Tab": 9, "Enter": 13}


class Tab:
    """One page of a browser.

    Attributes:
        problems: uncaught exceptions, errors on the console, and whatever the browser itself
            complained about, such as violations of a Content-Security-Policy.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.problems: list[str] = []
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol, and its result."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=60))
            if message.get("id") == number:
                assert "error" not in message, f"{method}: {message['error']}"
                return dict(message["result"])
            self._noticed(message)

    def _noticed(self, event: dict[str, Any]) -> None:
        given = event.get("params", {})
        match event.get("method"):
            case "Runtime.exceptionThrown":
                details = given["exceptionDetails"]
                thrown = details.get("exception", {}).get("description", "")
                self.problems.append(f"{details['text']} {thrown}")
            case "Runtime.consoleAPICalled" if given["type"] in ("error", "warning", "assert"):
                said = [str(a.get("value", a.get("description"))) for a in given["args"]]
                self.problems.append(" ".join(said))
            case "Log.entryAdded" if given["entry"]["level"] in ("error", "warning"):
                entry = given["entry"]
                self.problems.append(f"{entry['text']} {entry.get('url', '')}")

    def open(self, url: str) -> None:
        """Go to a page and wait until it has been loaded."""
        self.call("Page.navigate", url=url)
        # It answers when the new document has replaced the old one.
        self.wait_for("document.readyState === 'complete'")
        assert self.evaluate("location.href").startswith(url.split("?")[0])

    def evaluate(self, expression: str) -> Any:
        """The value of an expression, or of the promise that it is; it must be JSON."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        details = answer.get("exceptionDetails", {})
        assert not details, f"{expression}: {details}"
        return answer["result"].get("value")

    def wait_for(self, expression: str, within_seconds: float = 30) -> Any:
        """Until an expression is true; its value."""
        deadline = time.monotonic() + within_seconds
        while not (value := self.evaluate(expression)):
            text = "document.body && document.body.innerText.slice(0, 2000)"
            late = time.monotonic() > deadline
            assert not late, f"not so: {expression}\n{self.problems}\n{self.evaluate(text)}"
            time.sleep(0.1)
        return value

    def text(self, selector: str) -> str:
        """The text of the first element that a selector finds, as a person reads it."""
        found = f"document.querySelector({json.dumps(selector)})"
        return str(self.evaluate(f"{found}.innerText.trim()"))

    def look(self, width: int, height: int, *, dark: bool = False, phone: bool = False) -> None:
        """Be a screen of this size, in CSS pixels."""
        scale = 2 if phone else 1
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=phone,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def press(self, key: str) -> None:
        """Press and release a key that has a name, such as ``ArrowLeft``."""
        given = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS.get(key, 0)}
        if key == "Enter":
            given["text"] = "\r"  # which is what submits a form
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, **given)

    def move(self, x: float, y: float) -> None:
        """Move the mouse."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def picture(self, path: Path, *, whole: bool = True) -> None:
        """Write a PNG of the page, or of what is on the screen."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextlib.contextmanager
def browse() -> Iterator[Tab]:
    """Start a browser with one empty page; all of it is gone after the block."""
    with tempfile.TemporaryDirectory(prefix="chromium-") as home:
        process = subprocess.Popen(
            [program("chromium"), *OPTIONS, f"--user-data-dir={home}", "about:blank"],
            env=os.environ | libraries("chromium") | {"HOME": home},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=0,
        )
        try:
            # What it reports may lie there for minutes before a test asks for it: neither may the
            # queue be full then, nor somebody be missed who does not answer.
            address = _page(process, Path(home))
            with connect(address, max_size=None, max_queue=None, ping_interval=None) as socket:
                yield Tab(socket)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            time.sleep(0.2)  # its children write their last into the directory


def _page(process: subprocess.Popen[bytes], home: Path) -> str:
    """The address at which the empty page takes commands."""
    told = home / "DevToolsActivePort"
    deadline = time.monotonic() + 60
    while not (told.is_file() and told.read_text().count("\n") >= 1):
        assert process.poll() is None, "the browser ended: run `make deploy-tools` again"
        assert time.monotonic() < deadline, "the browser does not start"
        time.sleep(0.05)
    port = told.read_text().split()[0]
    while True:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=30) as answer:
            pages = [page for page in json.load(answer) if page["type"] == "page"]
        if pages:
            return str(pages[0]["webSocketDebuggerUrl"])
        assert time.monotonic() < deadline, "the browser has no page"
        time.sleep(0.05)
