# SPDX-License-Identifier: Apache-2.0
"""Two replicas on a Ray cluster of this machine, started as ``deploy/ray`` says."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.deploy.balancer import TRUSTED
from tests.deploy.tools import RAY, TREE, MissingToolError
from tests.serve.server import ARGUMENTS, MODEL, free_port
from vllm_qllm.access.key import hash_of, new_key

RAY_COMMAND = (sys.executable, "-m", "ray.scripts.scripts")
SERVE_COMMAND = (sys.executable, "-m", "ray.serve.scripts")
LS, BE = "latency_sensitive", "best_effort"
# Tenants and what they may use; asking for more is lowered.
TENANTS: dict[str, dict[str, dict[str, Any]]] = {
    "people": {LS: {}, BE: {}},
    "nightly": {BE: {}},
    "few": {LS: {"requests_per_second": 0.01, "burst": 1}},
}


@dataclass(frozen=True)
class RayReplica:
    """A server and the actor that minds it.

    Attributes:
        socket: on which the server listens.
        actor: process id of the actor.
        server: process id of the server, and of its process group.
    """

    socket: Path
    actor: int
    server: int

    def client(self) -> httpx.Client:
        """Straight to the server, past all of Ray."""
        transport = httpx.HTTPTransport(uds=str(self.socket))
        return httpx.Client(transport=transport, base_url="http://vllm", timeout=120)

    def samples(self, *names: str) -> dict[str, float]:
        """Values of metrics, of one moment, by class; summed over all else."""
        found: dict[str, float] = {}
        with self.client() as client:
            text = client.get("/metrics").text
        lines = [line for line in text.splitlines() if line.startswith(names)]
        for family in text_string_to_metric_families("\n".join(lines) + "\n"):
            for sample in family.samples:
                if sample.name in names:
                    cls = sample.labels["class"]
                    found[cls] = found.get(cls, 0) + sample.value
        return found

    def is_well(self) -> bool:
        """Whether its server answers."""
        try:
            with self.client() as client:
                return client.get("/health").is_success
        except httpx.HTTPError:
            return False

    def has_answered(self, path: str) -> bool:
        """Whether it ever has, to a request for this path."""
        with self.client() as client:
            return f'handler="{path}"' in client.get("/metrics").text

    def at_work(self) -> dict[str, float]:
        """Requests that it has, by class."""
        # Asked for one by one, a request that goes from state to state counts twice or never.
        states = ("running", "waiting", "suspended")
        return self.samples(*(f"qllm_requests_{state}" for state in states))


@dataclass
class RayFleet:
    """A cluster of one machine, and what ``serve run`` runs on it.

    Attributes:
        url: without a path.
        commands: ``ray start`` and ``serve run``.
        log: everything that anybody there printed.
        directory: for what Ray and the servers keep while they run.
        file: the configuration.
        keys: by tenant.
        environment: of all commands.
    """

    url: str
    commands: tuple[subprocess.Popen[bytes], ...]
    log: Path
    directory: Path
    file: Path
    keys: dict[str, str] = field(repr=False)
    environment: dict[str, str] = field(repr=False)

    def replicas(self) -> list[RayReplica]:
        """Those whose servers run now."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, ValueError):  # ended meanwhile
                words = (process / "cmdline").read_bytes().decode().split("\0")
                socket = Path(words[words.index("--uds") + 1])
                parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
                if socket.is_relative_to(self.directory):
                    found.append(RayReplica(socket, parent, int(process.name)))
        return sorted(found, key=lambda replica: replica.socket)

    def scale(self, replicas: int) -> None:
        """Bring the same file into effect with another number of replicas."""
        document = yaml.safe_load(self.file.read_text())
        document["applications"][0]["deployments"][1]["num_replicas"] = replicas
        self.file.write_text(yaml.safe_dump(document))
        command = [*SERVE_COMMAND, "run", "--non-blocking", str(self.file)]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    def end(self) -> None:
        """Kill it; nothing of it may be left."""
        # Not asked to shut down, which takes long.
        deadline = time.monotonic() + 30
        while left := self._processes():
            assert time.monotonic() < deadline, f"left over: {left}"
            for process in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            for command in self.commands:
                command.poll()
            time.sleep(0.1)

    def _processes(self) -> list[int]:
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if str(self.directory).encode() in (process / "environ").read_bytes():
                    found.append(int(process.name))
        return found


def configuration(model: Path, port: int, tenants: Path) -> dict[str, Any]:
    """That of ``deploy/ray``, with what differs here."""
    document: dict[str, Any] = yaml.safe_load((TREE / "deploy/ray/fleet.yaml").read_text())
    document["http_options"] = {"host": "127.0.0.1", "port": port}
    (application,) = document["applications"]
    application["args"] |= {
        "model": str(model),
        "priority_config": {"tenants": str(tenants)},
        "arguments": [*ARGUMENTS, "--served-model-name", MODEL],
        # vLLM takes longer to start where it finds Ray, and has no use for it here.
        "environment": {"VLLM_CPU_KVCACHE_SPACE": "1", "PYTHONPATH": str(TREE)},
        "trusted_hops": [f"{TRUSTED}/32"],
    }
    front, replica = application["deployments"]
    assert (front["name"], replica["name"]) == ("Front", "Replica")
    front["ray_actor_options"], replica["ray_actor_options"] = {"num_cpus": 0}, {"num_cpus": 1}
    return document


@contextlib.contextmanager
def ray_fleet(model: Path, logs: Path) -> Iterator[RayFleet]:
    """Run it; all of it is gone after the block.

    Args:
        model: directory of the model.
        logs: where to write what all of it prints.
    """
    if not RAY.is_dir():
        raise MissingToolError(f"{RAY} is not there: run `make deploy-tools`")
    tenants, file, port = logs / "tenants.json", logs / "fleet.yaml", free_port()
    keys = {name: new_key() for name in TENANTS}
    tenants_config = {
        name: {"keys": [hash_of(keys[name])], "classes": classes, "above": "lower"}
        for name, classes in TENANTS.items()
    }
    tenants.write_text(json.dumps({"tenants": tenants_config}))
    file.write_text(yaml.safe_dump(configuration(model, port, tenants)))
    # Short: paths of sockets have a limit of 107 characters.
    directory = Path(tempfile.mkdtemp(prefix="ray-"))
    environment = os.environ | {
        "PYTHONPATH": f"{TREE}{os.pathsep}{RAY}",
        "TMPDIR": str(directory),
        "RAY_TMPDIR": str(directory),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONUNBUFFERED": "1",
        # By itself Ray's workers, servers included, give way to all else on a busy machine.
        "RAY_worker_niceness": "0",
        # Of a router that asks a replica how it is; a busy machine takes longer than 0.1 s.
        "RAY_SERVE_QUEUE_LENGTH_RESPONSE_DEADLINE_S": "5",
        "RAY_SERVE_MAX_QUEUE_LENGTH_RESPONSE_DEADLINE_S": "5",
    }
    # Set for engines in the process of the tests; a server has engine processes.
    environment.pop("VLLM_ENABLE_V1_MULTIPROCESSING", None)
    address = f"127.0.0.1:{free_port()}"
    environment["RAY_ADDRESS"] = address
    start = (
        *(*RAY_COMMAND, "start", "--head", "--block", "--temp-dir", f"{directory}/ray"),
        *("--node-ip-address", "127.0.0.1", "--port", address.partition(":")[2]),
        # Any: one of its own range may be taken.
        *("--min-worker-port", "0", "--max-worker-port", "0"),
        *("--ray-client-server-port", str(free_port()), "--num-cpus", "4"),
        # It takes as long to start as all the rest, and nothing here asks it.
        *("--include-dashboard", "false"),
    )
    url, log = f"http://127.0.0.1:{port}", logs / "log"
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        cluster = stack.enter_context(_running(start, environment, log))
        _wait(lambda: "Ray runtime started" in log.read_text(errors="replace"), cluster, log)
        run = (*SERVE_COMMAND, "run", str(file))
        application = stack.enter_context(_running(run, environment, log))
        commands = (cluster, application)
        fleet = RayFleet(url, commands, log, directory, file, keys, environment)
        stack.callback(fleet.end)
        _wait(lambda: [r.is_well() for r in fleet.replicas()] == [True, True], application, log)
        # The front knows both only after a moment, and the first answer of each takes long.
        _wait(lambda: _both_have_answered(fleet), application, log)
        yield fleet


@contextlib.contextmanager
def _running(
    command: Sequence[str], environment: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as out:
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=log.parent,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(condition: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-60:])
        assert process.poll() is None and time.monotonic() < deadline, tail
        time.sleep(0.25)


def _both_have_answered(fleet: RayFleet) -> bool:
    path, headers = "/v1/completions", {"Authorization": f"Bearer {fleet.keys['people']}"}
    body = {"model": MODEL, "prompt": "hello", "max_tokens": 2}
    with contextlib.suppress(httpx.HTTPError):
        httpx.post(fleet.url + path, json=body, headers=headers, timeout=60)
    return all(replica.has_answered(path) for replica in fleet.replicas())
