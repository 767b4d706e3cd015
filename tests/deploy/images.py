# SPDX-License-Identifier: Apache-2.0
"""The images are built, command by command as the Dockerfile has them, and the CPU one serves.

Not named test_…: it takes minutes, gigabytes and root. ``make test-deploy`` runs it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.builder import build, buildah, call, environment, install, policy
from tests.serve.server import free_port
from vllm_qllm.access.key import hash_of

CPU, GPU, STAND_IN = "localhost/vllm-qllm:cpu", "localhost/vllm-qllm:gpu", "localhost/vllm:cpu"
RUN = ("run", "--isolation", "chroot", "--network", "host")

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def cpu() -> Iterator[str]:
    """A container of the image of the cpu target."""
    install()
    build("cpu", CPU)
    container = call(buildah("from", "--pull-never", *policy(), CPU)).strip()
    yield container
    call(buildah("rm", container))


def test_it_has_the_kernel_and_nothing_that_is_not_its_business(cpu: str) -> None:
    def inside(*command: str) -> str:
        return call(buildah(*RUN, cpu, "--", *command))

    assert inside("id", "-u").strip() == "10001"
    report = json.loads(inside("python", "-m", "vllm_qllm.verify", "--json"))
    assert report["works"]
    states = {finding["name"]: finding["state"] for finding in report["findings"]}
    assert states["expert kernel"] == states["in-step preemption"] == "ok"
    kinds = (
        "-name '*.safetensors' -o -name .git -o -name pip.conf -o -name 'id_*' -o -path '/src/*'"
    )
    # Not all can be looked into by who it runs as; what it cannot read it cannot give away.
    where = "/ -xdev -not -path '/proc/*' -not -path '/run/*' -size +0"
    found = inside("sh", "-c", f"find {where} '(' {kinds} ')' 2>/dev/null; true")
    assert not [path for path in found.splitlines() if "/site-packages/" not in path]
    writable = inside("find", "/opt/qllm", "-writable", "-not", "-type", "l")
    assert not writable.strip(), "the program can be changed by who runs it"


def test_whoever_keeps_the_tenants_file_makes_keys_with_it(cpu: str, tmp_path: Path) -> None:
    """As docs/operations.md says: a user whom the image does not know, in a directory of his."""
    tmp_path.chmod(0o755)
    os.chown(tmp_path, 4321, 4321)
    options = ("--user", "4321", "--volume", f"{tmp_path}:/priority")
    command = ("python", "-m", "vllm_qllm.keys", "add", "chat", "--file", "/priority/tenants.json")
    key = call(buildah(*RUN, *options, cpu, "--", *command, "--classes", "best_effort")).strip()
    (tenant,) = json.loads((tmp_path / "tenants.json").read_text())["tenants"].values()
    assert tenant["keys"] == [hash_of(key)]


def test_it_serves_and_its_health_check_knows(cpu: str, tiny_model: Path, tmp_path: Path) -> None:
    for path in tiny_model.iterdir():
        path.chmod(0o644)  # whoever the image runs as has to read it
    port = free_port()
    image = json.loads(call(buildah("inspect", cpu)))["Docker"]["config"]
    assert image["Entrypoint"] == ["vllm", "serve"]
    check = image["Healthcheck"]["Test"][1:]
    check = [part.replace(":8000", f":{port}") for part in check]
    command = buildah(
        *(*RUN, "--volume", f"{tiny_model}:/model:ro", "--env", "VLLM_CPU_KVCACHE_SPACE=1", cpu),
        *("--", "vllm", "serve", "/model", "--host", "127.0.0.1", "--port", str(port)),
        *("--enforce-eager", "--max-model-len", "2048", "--priority-policy", "strict"),
    )
    log = tmp_path / "log"
    with log.open("wb") as out:
        server = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, env=environment(), process_group=0
        )
    url = f"http://127.0.0.1:{port}"
    try:
        with pytest.raises(AssertionError, match="refused"):
            call(buildah(*RUN, cpu, "--", *check))
        deadline = time.monotonic() + 240
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{url}/health", timeout=5).close()
                break
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()[-4000:]
            time.sleep(0.5)
        call(buildah(*RUN, cpu, "--", *check))
        body = {"model": "/model", "prompt": "hello", "max_tokens": 4, "service_tier": "flex"}
        request = urllib.request.Request(
            f"{url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert json.load(answer)["service_tier"] == "flex"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(60)
            os.killpg(server.pid, signal.SIGKILL)


def test_the_gpu_target_builds_on_a_stand_in() -> None:
    """Its commands run on an image with vLLM for the CPU: its own base cannot be fetched here."""
    install()
    build("cpu-build", STAND_IN)
    container = call(buildah("from", "--pull-never", *policy(), STAND_IN)).strip()
    call(buildah(*RUN, container, "--", "pip", "uninstall", "--yes", "vllm-qllm"))
    call(buildah("commit", "--rm", *policy(), container, STAND_IN))
    build("gpu", GPU, VLLM_IMAGE=STAND_IN)
    # What the build itself said of it is not said again when its layers are there already.
    container = call(buildah("from", "--pull-never", *policy(), GPU)).strip()
    try:
        report = json.loads(
            call(buildah(*RUN, container, "--", "python3", "-m", "vllm_qllm.verify", "--json"))
        )
        assert report["works"]
    finally:
        call(buildah("rm", container))
