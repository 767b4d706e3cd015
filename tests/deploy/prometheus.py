# SPDX-License-Identifier: Apache-2.0
"""The real Prometheus with the configuration of ``deploy/prometheus``, on loopback."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.tools import TREE, program
from tests.serve.server import free_port

SOURCE = TREE / "deploy/prometheus"


@dataclass(frozen=True)
class Prometheus:
    """A Prometheus.

    Attributes:
        url: without a path.
    """

    url: str

    def get(self, path: str, **parameters: str) -> Any:
        """The data of an answer of its API.

        Raises:
            AssertionError: with its own words, when it answers with an error.
        """
        question = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(question, timeout=20) as answer:
                said = json.load(answer)
        except urllib.error.HTTPError as error:
            said = json.load(error)
        assert said["status"] == "success", f"{parameters}: {said}"
        return said["data"]

    def query(self, expression: str) -> dict[str, float]:
        """What PromQL gives now: value by labels, sorted and without the name."""
        found = {}
        for series in self.get("query", query=expression)["result"]:
            labels = {k: v for k, v in series["metric"].items() if k != "__name__"}
            found[",".join(f"{k}={v}" for k, v in sorted(labels.items()))] = float(
                series["value"][1]
            )
        return found

    def wait_for(self, expression: str, within_seconds: float = 60) -> dict[str, float]:
        """Ask until there is something."""
        deadline = time.monotonic() + within_seconds
        while not (found := self.query(expression)):
            assert time.monotonic() < deadline, f"nothing for {expression}"
            time.sleep(0.5)
        return found


@contextlib.contextmanager
def scrape(targets: Sequence[str], directory: Path) -> Iterator[Prometheus]:
    """Run Prometheus for as long as the block lasts, once a second for every five in production.

    Args:
        targets: replicas, as host:port.
        directory: for configuration, data and log.
    """
    for name in ("objectives.yml", "alerts.yml"):
        (directory / name).write_text((SOURCE / name).read_text())
    configuration = yaml.safe_load((SOURCE / "prometheus.yml").read_text())
    configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    (directory / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    (directory / "replicas.yml").write_text(yaml.safe_dump([{"targets": list(targets)}]))
    address = f"127.0.0.1:{free_port()}"
    with (directory / "log").open("wb") as out:
        process = subprocess.Popen(
            [
                program("prometheus"),
                f"--config.file={directory}/prometheus.yml",
                f"--storage.tsdb.path={directory}/data",
                f"--web.listen-address={address}",
            ],
            stdout=out,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        try:
            deadline = time.monotonic() + 60
            while True:
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"http://{address}/-/ready", timeout=5).close()
                    break
                assert process.poll() is None and time.monotonic() < deadline, (
                    directory / "log"
                ).read_text()
                time.sleep(0.2)
            yield Prometheus(f"http://{address}")
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
