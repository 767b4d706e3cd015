# SPDX-License-Identifier: Apache-2.0
"""Two real servers behind the real nginx; each can be ended and started again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.deploy.balancer import Balancer, balance
from tests.deploy.tools import TREE
from tests.serve.resources import processes
from tests.serve.server import STRICT, Server, free_port, serve
from vllm_qllm.access.key import hash_of, new_key

# Longer than any request of the tests takes.
DRAIN_SECONDS = 120


@dataclass
class Replica:
    """A server that listens on the same port whenever it runs.

    Attributes:
        port: of it.
        server: the one that runs, or ran last.
    """

    model: Path
    logs: Path
    tenants: Path
    port: int = field(default_factory=free_port)
    server: Server = field(init=False)
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _starts: int = 0

    @property
    def address(self) -> str:
        """host:port"""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns when it answers."""
        self._starts += 1
        log = self.logs / f"{self.port}-{self._starts}.log"
        drain = ("--shutdown-timeout", str(DRAIN_SECONDS))
        config = json.loads((TREE / "deploy/priority/config.json").read_text())
        access = ("--priority-config", json.dumps(config | {"tenants": str(self.tenants)}))
        # Two start side by side, on what may be two busy cores.
        options = (*STRICT, *drain, *access)
        running = serve(self.model, log, *options, port=self.port, timeout_seconds=480)
        self.server = self._stack.enter_context(running)

    def stop(self) -> None:
        """Ask it to end, then make it."""
        self._stack.close()

    @contextlib.contextmanager
    def hung(self) -> Iterator[None]:
        """It takes connections and does nothing, for as long as the block lasts."""
        os.killpg(self.server.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):  # killed meanwhile
                os.killpg(self.server.process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End all of it at once, as a machine that goes does."""
        os.killpg(self.server.process.pid, signal.SIGKILL)

    def kill_engine(self) -> None:
        """End its engine only."""
        os.kill(processes(self.server)["EngineCore"], signal.SIGKILL)


@dataclass(frozen=True)
class Fleet:
    """Replicas and what is in front of them.

    Attributes:
        key: of the tenant that may use both classes.
        operator: key of one that may look at everything.
    """

    a: Replica
    b: Replica
    balancer: Balancer
    key: str
    operator: str


@contextlib.contextmanager
def fleet(model: Path, logs: Path) -> Iterator[Fleet]:
    """Run both replicas, started side by side, and nginx; all is gone after the block."""
    key, operator, tenants = new_key(), new_key(), logs / "tenants.json"
    classes: dict[str, dict[str, int]] = {"latency_sensitive": {}, "best_effort": {}}
    tenants_config = {
        "clients": {"keys": [hash_of(key)], "classes": classes},
        "operators": {"keys": [hash_of(operator)], "classes": classes, "operator": True},
    }
    tenants.write_text(json.dumps({"tenants": tenants_config}))
    a, b = Replica(model, logs, tenants), Replica(model, logs, tenants)
    with contextlib.ExitStack() as stack:
        stack.callback(a.stop)
        stack.callback(b.stop)
        with ThreadPoolExecutor() as pool:
            for start in [pool.submit(a.start), pool.submit(b.start)]:
                start.result()
        running = stack.enter_context(balance([a.address, b.address], logs / "nginx.log"))
        yield Fleet(a, b, running, key, operator)
